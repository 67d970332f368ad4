"""The endpoint /generate: one call of a program, without a state, whose answer says all that is known of it."""

import asyncio
import functools
import inspect
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import gradio as gr
from gradio.components import Component

from parley.api.sessions import AS_THEY_ARE
from parley.api.turns.answer_tokens import answer_tokens
from parley.api.turns.failures import program_error
from parley.api.turns.program_turn import MAX_ANSWERS, MAX_CANDIDATES, ProgramTurn, ProgramTurns, Progress
from parley.api.visitors import ProgramStatus, visitor_of
from parley.errors import ChatError
from parley.events import Answer, TokenScore
from parley.serving.waiting_line import Visitor
from parley.settings import OPTIONS, Settings

# Why an answer ended, in the words of the OpenAI API where it has one.
FINISH_REASONS = {"end": "stop", "stop string": "stop", "stopped": "cancelled"}


def finish_reason(answer: Answer) -> str | None:
    """Why it ended: stop, length, context, time or cancelled; None while it goes on."""
    return answer.finish and FINISH_REASONS.get(answer.finish, answer.finish)


def usage(answers: Sequence[Answer]) -> dict[str, int]:
    """The tokens of these answers, which have one prompt."""
    known = [each.usage for each in answers if each.usage]
    return {
        "prompt_tokens": known[0].prompt_tokens if known else 0,
        "completion_tokens": sum(each.new_tokens for each in known),
        "cached_tokens": max((each.cached_tokens for each in known), default=0),
    }


def applied(answer: Answer, settings: Settings) -> dict[str, Any]:
    """The settings as they were applied: with the strategy that ran, and the seed."""
    values = dict(answer.origin.settings) if answer.origin else settings.model_dump()
    return values | {"strategy": settings.effective_strategy.name, "seed": values["seed"]}


class Generate:
    """The function of /generate."""

    def __init__(self, turns: ProgramTurns) -> None:
        self._turns = turns

    async def results(
        self, messages: Any, values: Mapping[str, Any], n: Any, logprobs: Any, visitor: Visitor
    ) -> AsyncGenerator[dict[str, Any]]:
        """Yields the result so far. Raises `ChatError`."""
        status = ProgramStatus()
        make = functools.partial(ProgramTurn.of, messages, values, n=n, candidates=logprobs, session=visitor.name)
        asked = await asyncio.to_thread(make)
        async with aclosing(self._turns.progress(asked, visitor, status.waits)) as steps:
            async for step in steps:
                yield await asyncio.to_thread(_result, asked, step) if step.scores else _result(asked, step)
                status.tell()

    def endpoint(self) -> Any:
        """The function with one parameter for each setting: Gradio takes the names from the signature."""

        async def generate(messages: Any, *values: Any) -> AsyncGenerator[dict[str, Any]]:
            *settings, n, logprobs, request = values
            given = dict(zip(OPTIONS, settings, strict=True))
            try:
                async with aclosing(self.results(messages, given, n, logprobs, visitor_of(request))) as results:
                    async for each in results:
                        yield each
            except ChatError as error:
                raise program_error(error) from error

        plain = inspect.Parameter.POSITIONAL_OR_KEYWORD
        types = {"messages": list, **{name: o.kind for name, o in OPTIONS.items()}, "n": int, "logprobs": int}
        parameters = [inspect.Parameter(name, plain, default=None, annotation=each) for name, each in types.items()]
        request = inspect.Parameter("request", plain, default=None, annotation=gr.Request)
        vars(generate)["__signature__"] = inspect.Signature([*parameters, request])
        generate.__annotations__ = types | {"request": gr.Request}
        generate.__doc__ = DESCRIPTION
        return generate


DESCRIPTION = """Generate an answer. Nothing is kept between calls. Yields the result so far.

A setting that is left out takes the value that the model recommends. A result has text, reasoning, finish_reason
(stop, length, context, time or cancelled; None while it goes on), usage (prompt_tokens, completion_tokens,
cached_tokens), timings (waiting and time_to_first_token in seconds, tokens_per_second), settings as they were applied
with the seed, notices, and status while it waits; with logprobs the tokens, with a beam search its score, and with n
above 1 choices, which has these of each answer. docs/api.md says more.
"""
# Of each parameter beside the settings: its type in Python, its JSON schema, what it is.
PARAMETERS: dict[str, tuple[str, dict[str, Any], str]] = {
    "messages": (
        "str | list[dict[str, Any]]",
        {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "object"}}]},
        'A list of {"role", "content"}, or one text.',
    ),
    "n": (
        "int",
        {"type": "integer", "minimum": 1, "maximum": MAX_ANSWERS, "default": 1},
        "How many answers come from one reading of the prompt: drawn with the seeds from the seed on or, of a beam "
        "search, its best hypotheses.",
    ),
    "logprobs": (
        "int",
        {"type": "integer", "minimum": 0, "maximum": MAX_CANDIDATES},
        "With a number, the last result has the tokens of the text, and so many candidates for each.",
    ),
}


def add(turns: ProgramTurns, settings: Sequence[Component]) -> None:
    """Adds /generate to the present `gr.Blocks` context. `settings` are their controls, in the order of `OPTIONS`."""
    messages, n, logprobs = (gr.JSON(visible=False) for _ in range(3))
    result = gr.JSON(visible=False, label="result")
    gr.Button(visible=False).click(
        Generate(turns).endpoint(),
        [messages, *settings, n, logprobs],
        result,
        api_name="generate",
        concurrency_limit=None,
        show_progress="hidden",
        trigger_mode="multiple",
        **AS_THEY_ARE,
    )


def _result(asked: ProgramTurn, step: Progress) -> dict[str, Any]:
    choices = [_choice(asked, each, scores) for each, scores in _scored(step)]
    usages = [each.usage for each in step.answers if each.usage]
    first, rate = next(iter(usages), None), [each.tokens_per_second for each in usages]
    result = choices[0] | {
        "usage": usage(step.answers),
        "timings": {
            "waiting": step.waiting,
            "time_to_first_token": first and first.time_to_first_token,
            "tokens_per_second": sum(filter(None, rate)) or None,
        },
        "status": "" if choices[0]["finish_reason"] else step.status,
    }
    return result | ({"choices": choices} if asked.n > 1 else {})


def _scored(step: Progress) -> list[tuple[Answer, Sequence[TokenScore] | None]]:
    scores: Sequence[Sequence[TokenScore] | None] = step.scores or [None] * len(step.answers)
    return list(zip(step.answers, scores, strict=True))


def _choice(asked: ProgramTurn, answer: Answer, scores: Sequence[TokenScore] | None) -> dict[str, Any]:
    choice: dict[str, Any] = {
        "text": asked.begun.text + answer.text,
        "reasoning": asked.begun.thought + answer.thought,
        "finish_reason": finish_reason(answer),
        "settings": applied(answer, asked.settings),
        "notices": list(answer.notices),
        "usage": usage([answer]),
    }
    if answer.finish and answer.beams:
        choice["score"] = answer.beams[0].score
    if scores is None:
        return choice
    tokens = answer_tokens(answer, scores, asked.settings.model)
    return choice | {"logprobs": [each.as_data(asked.candidates or 0) for each in tokens]}
