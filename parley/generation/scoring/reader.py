"""Reads an answer again, to the token, with what its strategy would have seen at each of them."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessorList

from parley import strategies
from parley.errors import BadConversation
from parley.events import SHOWN, Choices, TokenScore
from parley.generation.generation_config import DECODE_LOOP, plan_generation
from parley.generation.loaded_model import LoadedModel
from parley.generation.prompt import Prompt
from parley.generation.scoring.token_scores import Scorer
from parley.messages import Message
from parley.settings import Settings
from parley.strategies import Strategy
from parley.strategies.decoders.teacher_forcing import teacher_forcing

MAX_PROMPT_TOKENS = 1000  # of a prompt that are shown, the last ones

Run = Callable[[Prompt, dict[str, Any]], None]  # `generate` with these arguments


class Reader:
    """Reads answers of one model with `run`."""

    def __init__(self, loaded: LoadedModel, run: Run) -> None:
        self._loaded, self._run = loaded, run

    def scores(
        self,
        prompt: Prompt,
        ids: Sequence[int],
        settings: Settings,
        strategy: Strategy,
        *,
        tried: Sequence[Collection[int]] = (),
        shown: int = SHOWN,
    ) -> tuple[list[TokenScore], tuple[str, ...]]:
        """Why each of these tokens was chosen after the prompt, and the settings whose processors ran.

        At each of them the tokens that were `tried` are among the `shown` candidates.

        With the seed of the settings the draws are those of the answer.
        """
        draws = strategy.samples and settings.seed is not None and strategy.decoder == DECODE_LOOP
        plan = plan_generation(self._loaded, strategies.searched(strategy), settings, prompt)
        generator = torch.Generator(self._loaded.model.device).manual_seed(settings.seed or 0) if draws else None
        scores = list[TokenScore]()
        scorer = Scorer(self._loaded, prompt.ids[0].tolist(), scores.append, tried, shown=shown)
        options = {"generator": generator, "dola_layers": plan.options.get("dola_layers", "")}
        self._read(prompt, ids, scorer, plan.config, LogitsProcessorList(plan.processors), **options)
        return scores, scorer.chain

    def choices(
        self,
        prompt: Prompt,
        ids: Sequence[int],
        settings: Settings,
        strategy: Strategy,
        *,
        tried: Sequence[Collection[int]] = (),
        with_prompt: bool = True,
    ) -> Choices:
        """The same, with what the model says of the tokens of the prompt; no `ids` for a text that is only scored."""
        scores, chain = self.scores(prompt, ids, settings, strategy, tried=tried) if ids else ([], ())
        before, notes = self._prompt_scores(prompt) if with_prompt else ((), ())
        return Choices(tuple(before), tuple(scores), chain, rounding=self._loaded.plan.rounding, notes=notes)

    def _prompt_scores(self, prompt: Prompt) -> tuple[list[TokenScore], tuple[str, ...]]:
        """The scores of the last tokens of a prompt, and what is to be said of them."""
        scores = self.text_scores(prompt.ids[0].tolist())
        left_out = max(0, len(scores) - MAX_PROMPT_TOKENS)
        notes = (f"The first {left_out} tokens of the prompt are left out.",) if left_out else ()
        return scores[left_out:], notes

    def text_scores(self, ids: Sequence[int], shown: int = SHOWN) -> list[TokenScore]:
        """What the model alone says of each of these tokens after those before it; nothing of the first one.

        They are read apart from an answer, because the logits of a whole prompt would fill the memory, and a prompt
        that is read in pieces gives others by a rounding error.
        """
        alone = Prompt([Message("user", "")], torch.tensor([ids[:1]]), in_reasoning=False)
        plain = Settings.check({"strategy": "greedy"})
        config = plan_generation(self._loaded, plain.effective_strategy, plain, alone).config
        scores = list[TokenScore]()
        scorer = Scorer(self._loaded, ids[:1], scores.append, shown=shown)
        scorer.begin(ids[0])
        if len(ids) > 1:
            self._read(alone, ids[1:], scorer, config, LogitsProcessorList())
        return scores

    def _read(
        self,
        prompt: Prompt,
        ids: Sequence[int],
        scorer: Scorer,
        config: dict[str, Any],
        processors: LogitsProcessorList,
        **options: Any,
    ) -> None:
        arguments = {
            "generation_config": GenerationConfig(**config | {"num_beams": 1}),  # there is one text
            "logits_processor": processors,
            "custom_generate": teacher_forcing,
            "given": ids,
            "on_step": scorer,
            **options,
        }
        self._run(prompt, arguments)


def whole_text(loaded: LoadedModel, text: str) -> Prompt:
    """A text as a prompt of its own, with the special tokens that begin a text of this model.

    Raises `BadConversation` where it is too short or too long.
    """
    ids = loaded.tokenizer.encode(text)
    if not 1 < len(ids) <= loaded.context:
        raise BadConversation(
            f"This text has {len(ids)} tokens. {loaded.spec.label} can look at 2 to {loaded.context} of them. "
            "Give another one."
        )
    return Prompt([Message("user", text)], torch.tensor([ids]), in_reasoning=False)
