"""A loaded model with its tokenizer and its properties."""

from dataclasses import dataclass, field
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from parley.models.load_plan import LoadPlan
from parley.models.reasoning_dialects import THINK, Dialect
from parley.models.spec import ModelSpec
from parley.models.traits import ThinkingTraits


@dataclass
class LoadedModel:
    """A loaded model with its tokenizer and its properties.

    The `generation_config` of the model has only the ids of special tokens. The sampling settings were removed.
    """

    spec: ModelSpec
    plan: LoadPlan
    folder: Path
    model: PreTrainedModel  # with OpenVINO an adapter without weights
    tokenizer: PreTrainedTokenizerBase
    context: int  # tokens
    layers: int
    system_role: bool  # whether the template accepts a system message and renders it
    reasoning: ThinkingTraits = field(default_factory=ThinkingTraits)
    content_parts: bool = False  # whether the template wants the content of a message as a list of parts

    @property
    def chats(self) -> bool:
        """Whether it has a chat template; without one it only continues text."""
        return bool(self.tokenizer.chat_template)

    @property
    def end_ids(self) -> set[int]:
        """The tokens that end an answer."""
        ends = self.model.generation_config.eos_token_id
        return set(ends) if isinstance(ends, list) else {ends} - {None}

    @property
    def dialect(self) -> Dialect:
        """The marks of its thoughts; the usual ones where no marks are known."""
        return self.reasoning.dialect or THINK
