"""A model that is ready to answer, and what is known of it."""

from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from parley.models.load_plan import LoadPlan
from parley.models.spec import ModelSpec


@dataclass
class LoadedModel:
    """A model that is ready to answer, and what is known of it.

    Its `generation_config` holds only the ids of special tokens: nothing of the model's own sampling is left in it.
    """

    spec: ModelSpec
    plan: LoadPlan
    folder: Path
    model: PreTrainedModel  # with OpenVINO an adapter, which has no weights
    tokenizer: PreTrainedTokenizerBase
    context: int  # tokens
    layers: int
    thinking: bool  # whether the template reads `enable_thinking`
    system_role: bool  # whether the template takes a system message, and shows it to the model
