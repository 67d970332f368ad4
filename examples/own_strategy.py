"""A strategy of your own is a decode loop, and a row. Run it: python -m examples.own_strategy"""

from typing import Any

import torch

from parley.strategies import STRATEGIES, Strategy


def second_best(
    model: Any,
    input_ids: torch.Tensor,
    logits_processor: Any,
    stopping_criteria: Any,
    generation_config: Any,
    *,
    on_token: Any,
    synced_gpus: bool = False,
    **inputs: Any,
) -> torch.Tensor:
    """Takes the second most likely token each time."""
    outputs = model._prefill(input_ids, generation_config, inputs)
    while True:
        inputs = model._update_model_kwargs_for_generation(outputs, inputs)
        scores = logits_processor(input_ids, outputs.logits[:, -1].float())
        token = scores.topk(2).indices[:, 1:]
        input_ids = torch.cat([input_ids, token], dim=-1)
        on_token(token)
        if stopping_criteria(input_ids, None).all():
            return input_ids
        outputs = model(**model.prepare_inputs_for_generation(input_ids, next_sequence_length=1, **inputs))


STRATEGIES["second_best"] = Strategy(
    name="second_best",
    label="Second best",
    group="Everyday",
    hint="never the most likely token",
    summary="Always takes the second most likely token.",
    when="For seeing how a strategy is added.",
    source="https://huggingface.co/docs/transformers/generation_strategies",
    decoder="examples.own_strategy:second_best",
    events=("on_token",),
    cost=lambda values: 1.0,
)

if __name__ == "__main__":
    import app

    app.demo.launch(**app.page.LAUNCH)
