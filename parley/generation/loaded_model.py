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
    thinking: bool  # whether the template has a thinking switch
    system_role: bool  # whether the template accepts a system message and renders it
    reasoning: ThinkingTraits = field(default_factory=ThinkingTraits)
    content_parts: bool = False  # whether the template wants the content of a message as a list of parts

    @property
    def dialect(self) -> Dialect:
        """The marks of its thoughts; the usual ones where no marks are known."""
        return self.reasoning.dialect or THINK
