"""What strategies demand of a model, and the sentence for a model that cannot give it."""

from collections.abc import Callable
from dataclasses import dataclass

# The architectures, as `model_type` names them, whose memory of the text cannot be shortened by a token.
STATEFUL = frozenset(
    (
        *("bailing_hybrid", "bamba", "deepseek_v4", "falcon_h1", "falcon_mamba", "granitemoehybrid", "jamba"),
        *("kimi_linear", "mamba", "mamba2", "nemotron_h", "olmo_hybrid", "qwen3_5", "qwen3_5_moe"),
        *("qwen3_5_moe_text", "qwen3_5_text", "qwen3_next", "qwen4_exp", "qwen4_exp_text", "recurrent_gemma", "rwkv"),
        *("xlstm", "zamba", "zamba2", "zaya"),
    )
)
RECURRENT = frozenset(("conv", "linear_attention", "mamba", "hybrid", "hybrid_sliding"))  # as `layer_types` names them


@dataclass(frozen=True)
class ModelTraits:
    """What of a model decides which strategies it can run; None where that is not known before it is loaded."""

    label: str
    layers: int | None = None
    stateful: bool = False
    recurrent: bool = False  # some layers remember in another way than attention does
    draft: str = ""  # the label of the model that guesses ahead for it
    same_tokenizer: bool | None = None  # whether the draft has the model's own
    strategies: frozenset[str] | None = None  # those that its server can run; None: all
    engine: str = ""  # the kind of engine that runs it; empty where that is not known before it is loaded


@dataclass(frozen=True)
class Requirement:
    """One thing that a strategy needs."""

    needs: str  # what it is, for a table
    lacks: Callable[[ModelTraits], str]  # why a model does not have it, as the begin of a sentence; empty where it has


def _state(model: ModelTraits) -> str:
    return f"{model.label} keeps a state that cannot be taken back" if model.stateful else ""


def _attention(model: ModelTraits) -> str:
    return _state(model) or (f"{model.label} has layers other than attention" if model.recurrent else "")


def _layers(model: ModelTraits) -> str:
    return f"{model.label} has one layer only" if model.layers == 1 else ""


def _draft(model: ModelTraits) -> str:
    return "" if model.draft else f"{model.label} has no draft model"


def _tokenizer(model: ModelTraits) -> str:
    if model.draft and model.same_tokenizer is False:
        return f"{model.draft}, the draft of {model.label}, has another tokenizer"
    return ""


REQUIREMENTS: dict[str, Requirement] = {
    "no state": Requirement("no recurrent state", _state),
    "attention": Requirement("layers of attention only", _attention),
    "layers": Requirement("two layers or more", _layers),
    "draft": Requirement("a draft model", _draft),
    "same tokenizer": Requirement("the same tokenizer for both", _tokenizer),
}
