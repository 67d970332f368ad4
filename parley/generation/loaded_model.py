"""A loaded model with its tokenizer and its properties."""

from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from parley.models.load_plan import LoadPlan
from parley.models.spec import ModelSpec


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
    thinking: bool  # whether the template reads `enable_thinking`
    system_role: bool  # whether the template accepts a system message and renders it
