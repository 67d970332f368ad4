"""The token that a strategy would choose next, and what it chooses from, while the settings change.

The logits of the last texts are kept, so that other settings need no pass of the model.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
from transformers import GenerationConfig, LogitsProcessorList

from parley import strategies
from parley.errors import BadSetting, TooLong
from parley.events import NextToken, TokenScore
from parley.generation.detokenizer import IncrementalDetokenizer
from parley.generation.encoding import encode_typed
from parley.generation.generation_config import DECODE_LOOP, GenerationPlan, plan_generation
from parley.generation.loaded_model import LoadedModel
from parley.generation.prompt import Prompt
from parley.generation.scoring.reader import Run
from parley.generation.scoring.token_scores import Scorer
from parley.settings import Settings
from parley.strategies import Strategy
from parley.strategies.decoders.teacher_forcing import Step, look_again, teacher_forcing
from parley.strategies.processors.order import setting_of
from parley.strategies.processors.samplers.mirostat import Mirostat

Key = TypeVar("Key")
KEPT = 8  # texts whose logits are kept, and places in the random numbers of a seed
SHOWN = 20  # candidates


class NextTokens:
    """Looks at the next token of texts of one model, with `run`."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded = loaded
        self._logits = dict[tuple[int, ...], torch.Tensor]()  # of shape (vocabulary,), by the tokens before
        self._states = dict[tuple[int, int], torch.Tensor]()  # of generators, by the seed and the number of draws

    def ids(self, given: Sequence[int], forced: str) -> list[int]:
        """The tokens so far, with a text that somebody typed: what stands in it is no control token."""
        return [*given, *encode_typed(self._loaded.tokenizer, forced)]

    def look(
        self, run: Run, prompt: Prompt, ids: Sequence[int], settings: Settings, *, chosen: int | None, guess: str
    ) -> NextToken:
        """What follows these tokens of an answer. Raises `ChatError`.

        `chosen` is the token that the strategy chooses, where that does not follow from its scores.
        """
        strategy = strategies.searched(settings.effective_strategy)
        if strategy.record == "on_beams":
            raise BadSetting(
                f"{strategy.label} weighs whole answers, so it has no next token of its own. Choose another strategy."
            )
        if prompt.length + len(ids) >= self._loaded.context:
            raise TooLong("The context window is full. Take tokens back, or begin a new conversation.")
        step, chain = self._step(run, prompt, ids, settings, strategy)
        step = step if chosen is None else replace(step, token=chosen)
        score = self._score(prompt, ids, step)
        pieces = IncrementalDetokenizer(self._loaded.tokenizer, prompt.ids[0].tolist(), skip_special_tokens=False)
        guessed = encode_typed(self._loaded.tokenizer, guess)
        of_guess = self._score(prompt, ids, replace(step, token=guessed[0])) if guessed else None
        return NextToken(
            ids=tuple(ids),
            pieces=tuple(map(pieces.step, ids)),
            score=score,
            kept=int((step.scores > -torch.inf).sum()),
            vocabulary=len(step.scores),
            chain=chain,
            guess=of_guess and replace(of_guess, candidates=()),
            ended=bool(ids) and ids[-1] in self._loaded.end_ids,
        )

    def _score(self, prompt: Prompt, ids: Sequence[int], step: Step) -> TokenScore:
        scores = list[TokenScore]()
        Scorer(self._loaded, [*prompt.ids[0].tolist(), *ids], scores.append, shown=SHOWN)(step)
        return scores[0]

    def _step(
        self, run: Run, prompt: Prompt, ids: Sequence[int], settings: Settings, strategy: Strategy
    ) -> tuple[Step, tuple[str, ...]]:
        """The step with the token that the strategy chooses, and the settings whose processors ran."""
        plan = plan_generation(self._loaded, strategy, settings, prompt)
        steps, key = list[Step](), (*prompt.ids[0].tolist(), *ids)
        known = self._logits.get(key) if _is_plain(plan) else None
        arguments: dict[str, Any] = {
            "generation_config": GenerationConfig(**plan.config | {"num_beams": 1, "max_new_tokens": len(ids) + 1}),
            "logits_processor": LogitsProcessorList(plan.processors),
            "on_step": lambda step: steps.__setitem__(slice(None), [step]),
        }
        if known is None:
            arguments |= {"custom_generate": teacher_forcing, "given": [*ids, key[-1]]}
            arguments["dola_layers"] = plan.options.get("dola_layers", "")
            run(prompt, arguments)
            self._logits = _newest(self._logits, key, steps[0].logits.clone()) if _is_plain(plan) else self._logits
        else:
            run(replace(prompt, ids=torch.tensor([key])), arguments | {"custom_generate": look_again, "logits": known})
        draws = strategy.samples and plan.strategy.decoder == DECODE_LOOP
        uniform = self._uniform(settings.seed or 0, len(ids), steps[0].logits) if draws else None
        step = replace(steps[0], uniform=uniform)
        return replace(step, token=step.winner), tuple(setting_of(each) for each, _ in step.chain)

    def _uniform(self, seed: int, count: int, like: torch.Tensor) -> torch.Tensor:
        """The random numbers of the draw after `count` draws of this seed."""
        generator = torch.Generator(like.device).manual_seed(seed)
        uniform = torch.empty(len(like), dtype=torch.float64, device=like.device)
        begin = max((done for known, done in self._states if known == seed and done <= count), default=0)
        if begin:
            generator.set_state(self._states[seed, begin])
        for _ in range(begin, count):
            uniform.uniform_(generator=generator)
        self._states = _newest(self._states, (seed, count), generator.get_state())
        return uniform.uniform_(generator=generator)


def _is_plain(plan: GenerationPlan) -> bool:
    """Whether its scores follow from the logits of one sequence, without a state of the steps before."""
    kept = any(isinstance(each, Mirostat) for each in plan.processors)
    return not (kept or plan.config["guidance_scale"] or plan.options.get("dola_layers") or plan.strategy.watermark)


def _newest(known: dict[Key, torch.Tensor], key: Key, value: torch.Tensor) -> dict[Key, torch.Tensor]:
    """A new table with this entry and the newest of the others, because several threads read the old one."""
    return dict([*((k, v) for k, v in known.items() if k != key)][1 - KEPT :]) | {key: value}
