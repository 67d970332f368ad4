"""How each strategy is run: from checked settings to the arguments of `generate`, with nothing left to a default."""

from collections.abc import Callable
from typing import Any

from transformers import GenerationConfig, LogitsProcessorList, PreTrainedTokenizerBase

from parley import strategies
from parley.engines.loading import Loaded
from parley.errors import BadSetting
from parley.settings import Settings
from parley.strategies.constrained_beams import Phrase, constrained_beams
from parley.strategies.contrastive import contrastive
from parley.strategies.diverse_beams import diverse_beams
from parley.strategies.dola import dola
from parley.strategies.live_beams import live_beams
from parley.strategies.speculative import speculative
from parley.strategies.top_n_sigma import TopNSigma
from parley.streaming import AnswerStreamer

# What `generate` would take from the model, or from itself, where it is left out.
NEUTRAL: dict[str, Any] = {
    "do_sample": False,
    "temperature": None,
    "top_k": 0,
    "top_p": None,
    "min_p": None,
    "typical_p": None,
    "top_h": None,
    "epsilon_cutoff": None,
    "eta_cutoff": None,
    "num_beams": 1,
    "length_penalty": 1.0,
    "early_stopping": False,
    "no_repeat_ngram_size": None,
}
OFF = {"min_p": 0.0, "top_h": 0.0, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0, "no_repeat_ngram_size": 0}
COPIED = {*NEUTRAL, "repetition_penalty"}


def arguments(loaded: Loaded, settings: Settings, limit: int, streamer: AnswerStreamer) -> dict[str, Any]:
    """The keyword arguments for `generate`, all but the prompt and the stopping criteria.

    `limit`: the most new tokens. The answer goes to `streamer`. Raises `BadSetting` for what this model cannot do.
    """
    row = strategies.find(settings.strategy)
    if row.croppable and getattr(loaded.model, "_is_stateful", False):
        raise BadSetting(
            f"{loaded.row.label} keeps a state that cannot be taken back, so {row.label} does not work with it. "
            "Choose another strategy."
        )
    own = loaded.model.generation_config
    config = NEUTRAL | {"do_sample": row.samples}
    for name in row.uses:
        value = getattr(settings, name)
        if name in COPIED and OFF.get(name) != value:
            config[name] = value
    changes, extra = RUNS[row.runs](loaded, settings, streamer)
    processors = [TopNSigma(settings.top_n_sigma)] if "top_n_sigma" in row.uses and settings.top_n_sigma else []
    return {
        "generation_config": GenerationConfig(
            **(config | changes),
            max_new_tokens=limit,
            eos_token_id=own.eos_token_id,
            pad_token_id=own.pad_token_id,
            bos_token_id=own.bos_token_id,
        ),
        "logits_processor": LogitsProcessorList(processors),
        **extra,
    }


Run = Callable[[Loaded, Settings, AnswerStreamer], tuple[dict[str, Any], dict[str, Any]]]


def _tokens(loaded: Loaded, settings: Settings, streamer: AnswerStreamer) -> tuple[dict, dict]:
    return {}, {"streamer": streamer}


def _live_beams(loaded: Loaded, settings: Settings, streamer: AnswerStreamer) -> tuple[dict, dict]:
    return {}, {"custom_generate": live_beams, "on_beams": streamer.show}


def _diverse_beams(loaded: Loaded, settings: Settings, streamer: AnswerStreamer) -> tuple[dict, dict]:
    options = {"beam_groups": settings.beam_groups, "diversity_penalty": settings.diversity_penalty}
    beams = settings.beam_groups * settings.beams_per_group
    return {"num_beams": beams}, {"custom_generate": diverse_beams, "on_beams": streamer.show, **options}


def _constrained_beams(loaded: Loaded, settings: Settings, streamer: AnswerStreamer) -> tuple[dict, dict]:
    if not settings.forced_words:
        return _live_beams(loaded, settings, streamer)
    phrases = [_phrase(loaded.tokenizer, word) for word in settings.forced_words]
    return {}, {"custom_generate": constrained_beams, "on_beams": streamer.show, "phrases": phrases}


def _contrastive(loaded: Loaded, settings: Settings, streamer: AnswerStreamer) -> tuple[dict, dict]:
    options = {"penalty_alpha": settings.penalty_alpha, "candidates": settings.candidates}
    return {}, {"custom_generate": contrastive, "on_token": streamer.take, **options}


def _dola(loaded: Loaded, settings: Settings, streamer: AnswerStreamer) -> tuple[dict, dict]:
    return {}, {"custom_generate": dola, "on_token": streamer.take, "dola_layers": settings.dola_layers}


def _speculative(loaded: Loaded, settings: Settings, streamer: AnswerStreamer) -> tuple[dict, dict]:
    config: dict[str, Any] = {"num_assistant_tokens_schedule": "constant"}
    if settings.strategy == "prompt_lookup":
        config["prompt_lookup_num_tokens"] = settings.draft_tokens
        config["max_matching_ngram_size"] = settings.matching_ngram
    else:
        layers = loaded.model.config.get_text_config().num_hidden_layers
        if settings.exit_layer >= layers:
            raise BadSetting(
                f"{loaded.row.label} has {layers} layers, so it can exit after layer 1 to {layers - 1}, "
                f"not after {settings.exit_layer}."
            )
        config["assistant_early_exit"] = settings.exit_layer
        config["num_assistant_tokens"] = settings.draft_tokens
    return config, {"custom_generate": speculative, "on_token": streamer.take, "on_guess": streamer.count_guess}


def _phrase(tokenizer: PreTrainedTokenizerBase, word: str) -> Phrase:
    """The tokens of a word as it stands within a sentence."""
    return tuple(tokenizer.encode(f" {word}", add_special_tokens=False))


RUNS: dict[str, Run] = {
    "tokens": _tokens,
    "live_beams": _live_beams,
    "diverse_beams": _diverse_beams,
    "constrained_beams": _constrained_beams,
    "contrastive": _contrastive,
    "dola": _dola,
    "speculative": _speculative,
}
