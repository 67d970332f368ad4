"""Every figure: what it says, and what was asked of it."""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.many import TARGETS
from benchmarks.measures import Row
from benchmarks.models import SMOLLM2
from benchmarks.shapes import QWEN3_600M


@dataclass(frozen=True)
class Goal:
    """What was asked of a figure."""

    sentence: str
    met: Callable[[Row], bool]


@dataclass(frozen=True)
class Figure:
    """What the README says of a figure: what is measured, and what it is compared with."""

    meaning: str
    goal: Goal | None = None
    only: tuple[str, ...] = ()  # the models that the goal is about; none: all

    def verdict(self, row: Row) -> str:
        """Whether it is what was asked, as the end of a line; empty where nothing was."""
        if not self.goal or (self.only and row.model not in self.only):
            return ""
        return f"{'as asked' if self.goal.met(row) else 'MISSED'}: {self.goal.sentence}"


def at_least(ratio: float) -> Goal:
    """Of the ratio."""
    return Goal(f"a ratio of {ratio:g} at least", lambda row: row.ratio is not None and row.ratio >= ratio)


def rate(figure: float) -> Goal:
    """Of our own figure."""
    return Goal(f"{figure:g} at least", lambda row: row.ours >= figure)


def share(figure: float) -> Goal:
    """Of our own figure, in percent."""
    return Goal(f"at most {figure:g} %", lambda row: row.ours <= figure)


def at_most(figures: dict[str, float]) -> Goal:
    """Of our own figure, by model."""
    sentence = ", ".join(f"{figure:g} for {model}" for model, figure in figures.items())
    return Goal(f"at most {sentence}", lambda row: row.ours <= figures[row.model])


def memory(times: float, more: float) -> Goal:
    """Of the bytes of int8 weights, and so many MB more."""
    sentence = f"at most {times:g} times the int8 weights and {more:g} MB"
    return Goal(sentence, lambda row: row.baseline is not None and row.ours <= times * row.baseline + more)


LOAD = {SMOLLM2: 5.0, QWEN3_600M: 15.0}  # seconds
GREEDY = "beside greedy search; nothing drafted in both"
PLAIN = "beside greedy search by `generate` in 32-bit floats with the stock streamer"

MIX = "Tokens a second in all, of many chats at once"
AHEAD = Goal("more than 1", lambda row: row.ratio is not None and row.ratio > 1)

MANY: dict[str, Figure] = {
    "many_greedy_vs_llamacpp_q8": Figure(
        f"{MIX}, greedy search, beside llama.cpp with Q8_0 and as many sequences", at_least(2), TARGETS
    ),
    "many_sampling_vs_llamacpp_q8": Figure(
        "The same by sampling with top-k 50 and top-p 0.95 in both", at_least(1.8), TARGETS
    ),
    "many_greedy_vs_transformers": Figure(
        f"{MIX}, greedy search, beside `transformers serve --continuous-batching` in 32-bit floats", AHEAD, TARGETS
    ),
    "many_greedy_vs_one_by_one": Figure(f"{MIX}, greedy search, beside one turn after the other", AHEAD, TARGETS),
    "many_greedy_vs_bound": Figure(
        f"{MIX}, greedy search, beside what the passes alone allow", at_least(0.85), TARGETS
    ),
    "many_sampling_vs_bound": Figure("The same by sampling", at_least(0.85), TARGETS),
    "many_decode_greedy_vs_passes": Figure(
        "Decoding of many chats alone, greedy search, beside passes of as many rows", at_least(0.85), TARGETS
    ),
    "many_decode_sampling_vs_passes": Figure("The same by sampling", at_least(0.85), TARGETS),
    "many_decode_greedy_in_model": Figure("Time of this that is spent in the model, greedy search"),
    "many_decode_sampling_in_model": Figure("The same by sampling", rate(85), TARGETS[-1:]),
    "many_greedy_events": Figure("What passing this text on takes of the machine, greedy search", share(10), TARGETS),
    "many_sampling_events": Figure("The same by sampling", share(10), TARGETS),
    "many_greedy_in_model": Figure("Time of the whole mix that is spent in the model, greedy search"),
    "many_sampling_in_model": Figure("The same by sampling"),
    "many_first_token": Figure("First token, the median, greedy search, beside llama.cpp"),
    "many_first_token_p95": Figure("The same for the one in twenty who waits longest"),
    "many_next_turn": Figure("First token of next turns, which are asked at once, the median, beside llama.cpp"),
}
WAYS: dict[str, Figure] = {
    "way_generate": Figure(
        "200 tokens by `/generate`, which tells all that is known each time, beside decoding in the engine"
    ),
    "way_v1": Figure("The same by `/v1/chat/completions`, streamed"),
}
OVER_HTTP = MANY | WAYS  # they are measured by themselves, and written with the machine that they were measured on
FIGURES: dict[str, Figure] = {
    "decode_vs_plain": Figure(f"Decoding, nothing drafted, {PLAIN}", at_least(4)),
    "decode_vs_llamacpp_q8": Figure("Decoding, nothing drafted, beside llama.cpp with Q8_0", at_least(1)),
    "decode_vs_llamacpp_q4": Figure("The same beside llama.cpp with Q4_0, half the bytes"),
    "prefill_vs_plain": Figure(f"First token after 1,024 tokens of prompt, {PLAIN}"),
    "prefill_vs_llamacpp_q8": Figure(
        "First token after 1,024 tokens of prompt, beside llama.cpp with Q8_0", at_least(1.1), (SMOLLM2,)
    ),
    "prefill_vs_llamacpp_q4": Figure("The same beside llama.cpp with Q4_0"),
    "sampling_vs_greedy": Figure(
        f"Sampling with top-k 50, top-p 0.95 and a repetition penalty, {GREEDY}", at_least(0.93)
    ),
    "beams_vs_greedy": Figure(f"Four beams, {GREEDY}", at_least(0.6)),
    "diverse_beams_vs_greedy": Figure(f"Two groups of two beams, {GREEDY}", at_least(0.6)),
    "constrained_beams_vs_greedy": Figure(f"Four beams and a word that must occur, {GREEDY}", at_least(0.6)),
    "contrastive_vs_greedy": Figure(f"Contrastive search with four candidates, {GREEDY}", at_least(0.5)),
    "contrastive_vs_plain": Figure(f"Contrastive search, {PLAIN}", at_least(1)),
    "dola_vs_greedy": Figure(f"DoLa, {GREEDY}", at_least(0.5)),
    "dola_vs_plain": Figure(f"DoLa, {PLAIN}", at_least(1)),
    "green_list_vs_greedy": Figure(f"The green-list watermark, {GREEDY}", at_least(0.5)),
    "green_list_vs_plain": Figure(f"The green-list watermark, {PLAIN}", at_least(1)),
    "synthid_vs_greedy": Figure(f"The SynthID watermark, {GREEDY}", at_least(0.5)),
    "synthid_vs_plain": Figure(f"The SynthID watermark, {PLAIN}", at_least(1)),
    "copying": Figure("Greedy search that copies a text, with drafts beside none", at_least(2.5)),
    "talking": Figure("Greedy search in talk, with drafts beside none", at_least(1.1)),
    "talking_sampling": Figure("Sampling at 0.7 in talk, with drafts beside none", at_least(1.05)),
    "prompt_lookup_vs_stock": Figure("Prompt lookup, beside that of transformers in 32-bit floats", at_least(1)),
    "prompt_lookup_vs_greedy": Figure("Prompt lookup, beside greedy search without drafts"),
    "early_exit_vs_stock": Figure("Early exit, beside that of transformers in 32-bit floats", at_least(1)),
    "early_exit_vs_greedy": Figure("Early exit, beside greedy search without drafts"),
    "universal_assisted_vs_stock": Figure(
        "Universal assisted decoding with Budgie's drafts, beside that of transformers in 32-bit floats", at_least(1)
    ),
    "universal_assisted_vs_greedy": Figure("The same beside greedy search without drafts"),
    "assisted_vs_stock": Figure(
        "Assisted decoding with its own draft model, beside that of transformers in 32-bit floats", at_least(1)
    ),
    "assisted_vs_greedy": Figure("The same beside greedy search without drafts"),
    "next_turn_1024": Figure(
        "First token after 1,024 tokens of conversation, the answer before just made, beside reading all anew",
        at_least(8),
    ),
    "next_turn_1024_after_pause": Figure("The same after a pause of a few seconds"),
    "next_turn_4096": Figure(
        "First token after 4,096 tokens of conversation, the answer before just made, beside reading all anew",
        at_least(20),
    ),
    "next_turn_4096_after_pause": Figure("The same after a pause of a few seconds"),
    "budgie_engine": Figure(f"Decoding, nothing drafted, {PLAIN}", rate(400)),
    "budgie_api": Figure("200 tokens over the API, from sending to the end, beside decoding in the engine", rate(250)),
    "start": Figure("From `python app.py` until the page answers"),
    "load": Figure("From the start of loading to the first token", at_most(LOAD)),
    "load_with_probe": Figure("The same the first time, when the processor's rules are found out", at_most(LOAD)),
    "memory_held": Figure("Memory of a loaded model, beside one byte for each parameter", memory(2.2, 300)),
    "memory_peak": Figure("Memory at most while it loads, beside one byte for each parameter", memory(3, 500)),
    "memory_pool": Figure("What a few answers take of the pool of keys and values"),
    "memory_left": Figure("Memory that is not given back when a model is unloaded, beside what it took"),
    "memory_empty": Figure("Memory of the process without a model, which is left out of the other figures"),
    "text_loglik_int8": Figure("Mean log-likelihood of 1,500 tokens of English in int8, beside 32-bit floats"),
    "text_kl_int8": Figure("Divergence (KL) of int8 from 32-bit floats on this text"),
    "text_best_token_int8": Figure("Tokens of this text at which both find the same token the likeliest"),
    "questions_int8": Figure("Short factual questions in int8, beside 32-bit floats"),
    "exam_openvino": Figure("Exam in int8 by OpenVINO, beside 32-bit floats"),
    "loglik_openvino": Figure("Mean log-likelihood of held-out dialogues in int8 by OpenVINO, beside 32-bit floats"),
    "exam_transformers": Figure("Exam with transformers and int8 layers, beside 32-bit floats"),
    "loglik_transformers": Figure(
        "Mean log-likelihood of held-out dialogues with transformers and int8 layers, beside 32-bit floats"
    ),
    "engine_decode": Figure("Decoding by each engine, nothing drafted"),
    "engine_prefill": Figure("First token after 128 tokens of prompt by each engine"),
    "plan": Figure("Decoding by the engine that the plan takes, beside the fastest of all others", at_least(0.95)),
    **OVER_HTTP,
}
