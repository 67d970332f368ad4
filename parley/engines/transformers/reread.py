"""Models that read a text again where it passes their first window: the cache of a turn stays one object.

Such a model drops its cache there and makes a new one, of which neither a decode loop nor the prefix cache would know.
Then it would read everything again for each further token.
"""

from typing import Any

from transformers import PreTrainedModel

from parley.positions import REREAD, Rotation


class _EmptiesCache:
    """Comes before the class of such a model: its cache is emptied and used again."""

    def prepare_inputs_for_generation(
        self,
        input_ids: Any,
        next_sequence_length: int | None = None,
        past_key_values: Any = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """As the model's, for the last `next_sequence_length` tokens, or for all where they are read again."""
        rotation = Rotation(self.config.get_text_config(decoder=True))  # type: ignore[attr-defined]
        if past_key_values is not None and rotation.rereads(past_key_values.get_seq_length(), input_ids.shape[1]):
            past_key_values.reset()
            next_sequence_length = None
        inputs: dict[str, Any] = super().prepare_inputs_for_generation(  # type: ignore[misc]
            input_ids, next_sequence_length=next_sequence_length, past_key_values=past_key_values, **kwargs
        )
        return inputs if past_key_values is None else inputs | {"past_key_values": past_key_values}


def keep_one_cache(model: PreTrainedModel) -> None:
    """Makes a model that reads a text again empty its cache for that. The tokens are the same."""
    own = type(model)
    if model.config.model_type in REREAD and not issubclass(own, _EmptiesCache):
        model.__class__ = type(own.__name__, (_EmptiesCache, own), {"__module__": own.__module__})
