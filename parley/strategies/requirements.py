"""The requirements of strategies on a model, with the sentence for a model that does not meet one."""

from collections.abc import Callable
from dataclasses import dataclass

# The architectures (values of `model_type`) with a state from which a token cannot be removed.
STATEFUL = frozenset(
    (
        *("bailing_hybrid", "bamba", "deepseek_v4", "falcon_h1", "falcon_mamba", "granitemoehybrid", "jamba"),
        *("kimi_linear", "mamba", "mamba2", "nemotron_h", "olmo_hybrid", "qwen3_5", "qwen3_5_moe"),
        *("qwen3_5_moe_text", "qwen3_5_text", "qwen3_next", "qwen4_exp", "qwen4_exp_text", "recurrent_gemma", "rwkv"),
        *("xlstm", "zamba", "zamba2", "zaya"),
    )
)
RECURRENT = frozenset(("conv", "linear_attention", "mamba", "hybrid", "hybrid_sliding"))  # values in `layer_types`


@dataclass(frozen=True)
class ModelTraits:
    """The traits of a model that decide which strategies it can use; None for what only loading tells."""

    label: str
    layers: int | None = None
    stateful: bool = False
    recurrent: bool = False  # some layers keep a state instead of keys and values
    draft: str = ""  # the label of its draft model
    same_tokenizer: bool | None = None  # whether the draft has the same tokenizer
    strategies: frozenset[str] | None = None  # those that its server supports; None: all
    exits: bool = True  # whether its code can stop after some of its layers
    engine: str = ""  # the kind of engine that runs it; empty where only loading tells


@dataclass(frozen=True)
class Requirement:
    """One requirement of a strategy on a model."""

    needs: str  # the requirement in words, for a table
    lacks: Callable[
        [ModelTraits], str
    ]  # why a model does not meet it, as the start of a sentence; empty where it does


def _state(model: ModelTraits) -> str:
    return f"{model.label} keeps a state that cannot be taken back" if model.stateful else ""


def _attention(model: ModelTraits) -> str:
    return _state(model) or (f"{model.label} has layers other than attention" if model.recurrent else "")


def _layers(model: ModelTraits) -> str:
    if not model.exits:
        return f"{model.label} runs all its layers for every token"
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
    "layers": Requirement("two layers or more, of which the first can run alone", _layers),
    "draft": Requirement("a draft model", _draft),
    "same tokenizer": Requirement("the same tokenizer for both", _tokenizer),
}
