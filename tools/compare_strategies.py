"""Compares all decoding strategies: python -m tools.compare_strategies [--prompt "Tell me a story."]

Prints an answer and the speed of each strategy, and draws a figure of its effect on the text: how much an answer
repeats itself, how much the samples differ, how likely the tokens are. Everything runs in this process, with the
default settings. The figure needs matplotlib, which `pip install -r tests/requirements.txt` installs.
"""

import argparse
import functools
import math
import re
import statistics
import sys
import textwrap
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from parley.engines.local_engine import LocalEngine
from parley.errors import ChatError
from parley.events import Answer
from parley.generation.loaded_model import LoadedModel
from parley.generation.prompt import render_prompt
from parley.messages import build_messages
from parley.models import registry
from parley.serving import turn
from parley.settings import Settings
from parley.strategies import STRATEGIES, Strategy

ROOT = Path(__file__).parent.parent
PROMPTS = (
    "Tell me a story about an owl.",
    "Write a poem about rain.",
    "Tell me a joke.",
    "How are you today?",
    "I had a long day.",
    "What is top-p sampling?",
)
PANELS = (  # title and unit
    ("Repetition", "share of 3-grams said before"),
    ("Diversity", "1 \N{MINUS SIGN} Self-BLEU of the samples"),
    ("Likelihood", "log probability of a token, nats"),
)
INK, MUTED, RULE = "#1f2328", "#59636e", "#d1d9e0"
COLOURS = {True: "#0a7d54", False: "#4f5fc4"}  # by whether the strategy samples
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "parley",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "xtick.color": MUTED,
    "ytick.color": INK,
}


def repetition(text: str) -> float:
    """The share of an answer's 3-grams of words that occur earlier in it (rep-3, arXiv:1908.04319)."""
    grams = _grams(_words(text), 3)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def diversity(texts: Sequence[str]) -> float:
    """1 - Self-BLEU (arXiv:1802.01886) of words and pairs of words: 0 if all texts are equal, 1 if no two texts share
    a pair.
    """
    words = [_words(text) for text in texts]
    scores = [_bleu(words[i], words[:i] + words[i + 1 :]) for i in range(len(words))] if len(words) > 1 else [1.0]
    return 1 - statistics.fmean(scores)


def likelihood(loaded: LoadedModel, prompt: torch.Tensor, text: str) -> float:
    """The model's mean log probability, in nats, of the answer's tokens after the prompt, shape (1, tokens).

    The text is tokenized again, without an end-of-sequence token. The text does not show whether the model began
    with a space, so the larger value of both cases is taken.
    """
    return max(_mean_log_probability(loaded, prompt, prefix + text) for prefix in ("", " "))


@torch.inference_mode()
def _mean_log_probability(loaded: LoadedModel, prompt: torch.Tensor, text: str) -> float:
    answer = loaded.tokenizer.encode(text, add_special_tokens=False, return_tensors="pt")
    ids = torch.cat([prompt, answer], dim=1).to(loaded.model.device)
    logits = loaded.model(ids).logits[0, prompt.shape[1] - 1 : -1].float().cpu()  # (answer's tokens, vocabulary)
    return logits.log_softmax(-1).gather(-1, answer[0, :, None]).mean().item()


def _words(text: str) -> list[str]:
    return re.findall(r"[\w']+", text.lower())


def _grams(words: Sequence[str], size: int) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + size]) for i in range(len(words) - size + 1)]


def _bleu(words: Sequence[str], others: Sequence[Sequence[str]]) -> float:
    """BLEU up to pairs of words (Papineni et al., 2002), unsmoothed, without orders longer than the text."""
    if not words:
        return float(words in others)
    precisions = []
    for size in range(1, min(2, len(words)) + 1):
        counts, max_counts = Counter(_grams(words, size)), Counter[tuple[str, ...]]()
        for other in others:
            max_counts |= Counter(_grams(other, size))
        precisions.append((counts & max_counts).total() / counts.total())
    closest = min((len(other) for other in others), key=lambda length: (abs(length - len(words)), length))
    return (
        min(1.0, math.exp(1 - closest / len(words))) * statistics.geometric_mean(precisions)
        if all(precisions)
        else 0.0
    )


@dataclass(frozen=True)
class Runs:
    """The answers of one strategy: one list per round, in the order of the prompts."""

    strategy: Strategy
    rounds: list[list[Answer]] = field(default_factory=list)

    @property
    def speeds(self) -> list[float]:
        """Tokens per second in each round; the time includes the prefill."""
        usages = [[answer.usage for answer in answers if answer.usage] for answers in self.rounds]
        return [sum(u.new_tokens for u in each) / sum(u.seconds for u in each) for each in usages]

    def samples(self, prompt: int) -> list[str]:
        """The samples for the prompt with this index; a single text if the strategy is deterministic."""
        texts = [answers[prompt].text for answers in self.rounds]
        return texts if self.strategy.samples else texts[:1]


def answer(strategy: Strategy, prompt: str, seed: int, options: argparse.Namespace) -> Answer:
    """Runs one turn and returns the complete answer. Raises `ChatError` if the model cannot run the strategy."""
    return Answer.of(turn.reply(uuid.uuid4().hex, build_messages([], prompt), _settings(strategy, seed, options)))


def _settings(strategy: Strategy, seed: int, options: argparse.Namespace) -> Settings:
    values = {"model": options.model, "strategy": strategy.name, "seed": seed, "force_words": options.word}
    return Settings.check(values | {"max_new_tokens": options.max_new_tokens})


def run(prompts: Sequence[str], options: argparse.Namespace) -> list[Runs]:
    """Runs every strategy that the model supports on every prompt, `options.samples` times. Prints why others are left
    out.

    The strategies alternate within a round, so that a slow period of the machine affects all of them.
    """
    all_runs = []
    for strategy in STRATEGIES.values():
        try:
            answer(strategy, prompts[0], 0, options)  # loads the models and warms up
            all_runs.append(Runs(strategy))
        except ChatError as refusal:
            print(f"{strategy.label}: {refusal}\n")
    for seed in range(options.samples):
        print(f"round {seed + 1} of {options.samples}", file=sys.stderr)
        for runs in all_runs:
            runs.rounds.append([answer(runs.strategy, prompt, seed, options) for prompt in prompts])
    return all_runs


def report(all_runs: Sequence[Runs]) -> None:
    """Prints each strategy's first answer and its median speed, also as a multiple of greedy's."""
    greedy = statistics.median(all_runs[0].speeds)
    for runs in all_runs:
        speed = statistics.median(runs.speeds)
        print(f"{runs.strategy.label}: {speed:.0f} tokens/s, {speed / greedy:.2f} times {all_runs[0].strategy.label}")
        print(textwrap.indent(runs.samples(0)[0], "    "), end="\n\n")


@dataclass(frozen=True)
class Measured:
    """One strategy's row of the figure: a value for each prompt in each panel, drawn as small dots and their mean."""

    label: str
    sampled: bool  # whether the strategy samples
    panels: tuple[Sequence[float], ...]


def measure(all_runs: Sequence[Runs], prompts: Sequence[str], options: argparse.Namespace) -> list[Measured]:
    """The rows of the figure. An empty answer has no likelihood, and is left out of that panel."""
    with turn.POOL.lease(registry.find(options.model), lambda _: None, Event()) as engine:
        assert isinstance(engine, LocalEngine)  # `main` refuses other models

        @functools.cache
        def cached_likelihood(prompt: str, text: str) -> float:
            settings = _settings(all_runs[0].strategy, 0, options)
            return likelihood(
                engine.loaded, render_prompt(engine.loaded, build_messages([], prompt), settings).ids, text
            )

        rows = []
        for runs in all_runs:
            samples = [runs.samples(i) for i in range(len(prompts))]
            repetitions = [statistics.fmean(map(repetition, texts)) for texts in samples]
            likelihoods = [
                statistics.fmean(cached_likelihood(prompt, text) for text in texts if text.strip())
                for prompt, texts in zip(prompts, samples, strict=True)
                if any(text.strip() for text in texts)
            ]
            panels = (repetitions, list(map(diversity, samples)), likelihoods)
            rows.append(Measured(runs.strategy.label, runs.strategy.samples, panels))
        return rows


def draw(rows: Sequence[Measured], caption: str, path: Path) -> None:
    """Writes the figure as SVG. Equal rows give equal bytes, and text is stored as text."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 1.25 + 0.25 * len(rows)))
        panels = figure.subplots(1, len(PANELS), sharey=True)
        for number, (axes, (title, unit)) in enumerate(zip(panels, PANELS, strict=True)):
            _panel(axes, rows, number)
            axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
            axes.set_xlabel(unit, loc="left")
        panels[0].set_yticks(range(len(rows)), [row.label for row in rows])
        panels[0].invert_yaxis()
        inch = 1 / figure.get_figheight()
        figure.subplots_adjust(left=0.225, right=0.98, top=1 - 0.4 * inch, bottom=0.85 * inch, wspace=0.12)
        figure.text(0.02, 0.14 * inch, caption, color=MUTED)
        for x, random, text in ((0.815, True, "draws at random"), (0.98, False, "gives one text")):
            mark = f"\N{BLACK CIRCLE} {text}"
            figure.text(x, 0.14 * inch, mark, color=COLOURS[random], fontweight="bold", ha="right")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="svg", metadata={"Date": None, "Title": "What each decoding strategy does"})


def _panel(axes: Axes, rows: Sequence[Measured], number: int) -> None:
    if rows[0].panels[number]:
        axes.axvline(statistics.fmean(rows[0].panels[number]), color=RULE, linewidth=1, zorder=0)
    for sampled, colour in COLOURS.items():
        chosen = [
            (y, row.panels[number]) for y, row in enumerate(rows) if row.sampled == sampled and row.panels[number]
        ]
        dots = [(value, y) for y, values in chosen for value in sorted(set(values))]
        means = [(statistics.fmean(values), y) for y, values in chosen]
        axes.plot(*_columns(dots), "o", markersize=3.5, color=colour, alpha=0.45, markeredgewidth=0)
        axes.plot(*_columns(means), "o", markersize=7, color=colour, markeredgecolor="white")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.locator_params(axis="x", nbins=4)
    axes.grid(axis="y", color=RULE, linewidth=0.5)
    axes.set_axisbelow(True)


def _columns(points: Sequence[tuple[float, int]]) -> tuple[list[float], list[int]]:
    return [x for x, _ in points], [y for _, y in points]


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompt", help=f"ask this instead of the {len(PROMPTS)} prompts of the figure")
    parser.add_argument("--model", default="budgie", help="a name of the catalogue or of MODEL_IDS")
    parser.add_argument("--samples", type=int, default=8, help="rounds; each gives one sample of a sampling strategy")
    parser.add_argument("--max-new-tokens", type=int, default=120)
    parser.add_argument("--word", default="bird", help="the word that constrained beam search must use")
    parser.add_argument("--figure", type=Path, default=ROOT / "docs" / "strategies.svg")
    options = parser.parse_args(arguments)
    if options.samples < 2:
        parser.error("--samples must be 2 or more: one sample can not differ from others.")
    prompts = [options.prompt] if options.prompt else PROMPTS
    try:
        row = registry.find(options.model)
        if row.engine != "local":
            parser.error(f"{row.label} has no probabilities to measure. Choose another model.")
        _settings(STRATEGIES["greedy"], 0, options)
        with turn.POOL.lease(row, lambda _: None, Event()):
            all_runs = run(prompts, options)
    except ChatError as error:
        parser.error(str(error))
    if not all_runs:
        parser.error("No strategy can answer this. The reasons are printed above.")
    report(all_runs)
    draw(measure(all_runs, prompts, options), _caption(row.label, len(prompts), options.samples), options.figure)


def _caption(model: str, prompts: int, samples: int) -> str:
    asked = "1 prompt" if prompts == 1 else f"{prompts} prompts (small dots), their mean (large)"
    return f"{model}: {asked}, {samples} samples. Line: greedy."


if __name__ == "__main__":
    main()
