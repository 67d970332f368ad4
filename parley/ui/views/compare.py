"""The comparison on the page (compare.js, compare_view.js), its lessons, and the endpoint /compare."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass
from typing import Any

import gradio as gr
from starlette.responses import JSONResponse
from starlette.routing import Route

from parley import strategies
from parley.api.endpoints import checked_ids
from parley.api.generate import PARAMETERS
from parley.api.mcp_tools import SETTINGS, Tool
from parley.api.turns.failures import BROKEN, program_error
from parley.api.visitors import ProgramStatus, visitor_of
from parley.errors import ChatError
from parley.events import STATUSES
from parley.models import registry
from parley.serving import comparison
from parley.serving.column_batch import MAX_COLUMNS
from parley.serving.waiting_line import Visitor
from parley.settings import OPTIONS
from parley.ui import render
from parley.ui.gradio_patches import NAMES
from parley.ui.views import conversations
from parley.ui.views.comparison_stream import CompareFunction, Question

log = logging.getLogger("parley")

TEXTS = {  # of compare.js
    "back": "Back to the conversation",
    "ask": "The question for all columns",
    "placeholder": "One question for all columns…",
    "run": "Compare",
    "stop": "Stop all",
    "keep": "Keep this one",
    "add": "Add a column",
    "remove": "Remove column {count}",
    "column": "Column {count}",
    "lessons": "Lessons",
    "sweep": "Sweep",
    "sweep_help": "A column for each of several values of one setting.",
    **{"from": "from", "to": "to", "columns": "columns", "fill": "Fill the columns"},
    "differences": "Show differences",
    "setting": "Add a setting…",
    "without": "Without {label}",
    "shared": "All columns",
    "before": "The conversation before it is read too.",
    "again": "The last question of your conversation, with what is before it.",
    "seconds": "It asks for {count} s of your GPU time.",
    "asked": "It asked for {count} s of GPU time.",
    "unknown_setting": "There is no setting called {names}, so it was left out.",
    "few": "A link to a comparison names two to six columns, as 1.strategy=greedy&2.strategy=sampling.",
    "over": "All columns have ended.",
    "refused": "The server was not reached, or could not take this. Nothing is lost: press Compare again.",
    "scored": "Bits per byte: all texts are scored by {model}.",
}
VIEW_TEXTS = {  # of compare_view.js, beside those of an answer
    "beam_list": "Beams of the search",
    "speed": "Speed",
    "first": "First token",
    "logprob": "Log-likelihood",
    "logprob_help": "The mean log probability of a token in nats, by the column's own model.",
    "perplexity": "Perplexity",
    "perplexity_help": "Of the answer, by its own model: how many tokens it chose among, as it were.",
    "bits": "Bits per byte",
    "bits_help": "How surprising the text is to one model, whatever the tokens of the others are.",
    "distinct": "Distinct-2",
    "distinct_help": "The share of pairs of words that are different (Li et al., 2016).",
    "repeated": "Repeated 4-grams",
    "repeated_help": "The share of runs of four words that occurred before (Welleck et al., 2020).",
    "length": "Length",
    **{"word": "{count} word", "words": "{count} words"},
    "drafts": "Drafts",
    "accepted": "{accepted} of {drafted} accepted",
}
OF_AN_ANSWER = {
    **{name: render.TEXTS[name] for name in ("thought", "score", "finished", "token", "tokens", "chunks")},
    "reading": STATUSES["reading"],
    "tokens_per_second": render.TEXTS["speed"],
    **{f"end_{name.replace(' ', '_')}": text for name, text in render.ENDINGS.items()},
}


@dataclass(frozen=True)
class Lesson:
    """Columns that show something. They are filled, and asked, with one click."""

    name: str
    title: str
    says: str
    question: str
    shared: Mapping[str, Any]  # the settings of all columns
    columns: tuple[Mapping[str, Any], ...]


LESSONS = (
    Lesson(
        "temperature",
        "What temperature does",
        "One question at four temperatures, with the same seed: the draws are the same, the distribution is not.",
        "Tell me a story about an owl.",
        {"strategy": "sampling", "top_p": 1.0, "top_k": 0, "seed": 7, "max_new_tokens": 120},
        tuple({"temperature": each} for each in (0.2, 0.7, 1.1, 1.5)),
    ),
    Lesson(
        "loops",
        "Greedy loops, sampling does not",
        "The likeliest next word, again and again, often runs in a circle. Look at the repeated 4-grams.",
        "Write a poem about the moon.",
        {"max_new_tokens": 200},
        ({"strategy": "greedy"}, {"strategy": "sampling", "temperature": 0.9, "seed": 7}),
    ),
    Lesson(
        "beams",
        "Beams rewrite themselves",
        "A beam search keeps several beginnings, and may go on with another one than a moment ago.",
        "Tell me a story about an owl.",
        {"max_new_tokens": 80},
        ({"strategy": "beams", "num_beams": 5}, {"strategy": "diverse_beams"}, {"strategy": "greedy"}),
    ),
    Lesson(
        "sooner",
        "The same text, sooner",
        "Drafts are proposed cheaply and checked by the model, so the text is the same. Compare the speed.",
        "Repeat after me: red tea, red tea, green tea, red tea.",
        {"max_new_tokens": 80},
        tuple({"strategy": each} for each in ("greedy", "prompt_lookup", "assisted", "early_exit")),
    ),
)
FIRST_LESSON = LESSONS[0]  # the first pill of the empty page
# The values between which a sweep goes, where these are not all that a setting may have.
SWEEPS = {
    "temperature": (0.2, 1.5),
    "top_p": (0.4, 1.0),
    "top_k": (2, 100),
    "min_p": (0.0, 0.3),
    "repetition_penalty": (1.0, 1.5),
    "guidance_scale": (1.0, 2.5),
    "watermark_bias": (1.0, 8.0),
    "max_new_tokens": (50, 200),
    "penalty_alpha": (0.0, 0.8),
    "seed": (1, 4),
}


def known_at_once() -> dict[str, str]:
    """What compare.js has to know before it is opened."""
    return {"run": TEXTS["run"], "lesson": FIRST_LESSON.title}


async def _page_data(_: Any) -> JSONResponse:
    return JSONResponse(await asyncio.to_thread(page_data))


ROUTES = [Route("/compare.json", _page_data)]  # read when a visitor opens the view, so that the page is small


def page_data() -> dict[str, Any]:
    """What compare.js has to know."""
    models = registry.models().values()
    return {
        "texts": TEXTS
        | {name: conversations.TEXTS[name] for name in ("link", "copied")}
        | {"stop_one": NAMES["stop"]},
        "view": OF_AN_ANSWER | VIEW_TEXTS,
        "min": comparison.MIN_COLUMNS,
        "max": MAX_COLUMNS,
        "lessons": [asdict(each) for each in LESSONS],
        "models": [[row.name, row.label] for row in models if not row.problem],
        "default": registry.default().name,
        "strategies": [[row.name, row.label, row.group] for row in strategies.STRATEGIES.values()],
        "uses": {row.name: list(row.uses) for row in strategies.STRATEGIES.values()},
        "settings": {o.name: _described(o.name) for o in OPTIONS.values() if o.name not in ("model", "strategy")},
    }


def _described(name: str) -> dict[str, Any]:
    o = OPTIONS[name]
    low, high = SWEEPS.get(name, (o.low, o.high))
    numeric = o.kind in (int, float)
    return {
        "label": o.label,
        "kind": "choice" if o.choices else {str: "text", bool: "switch"}.get(o.kind, "number"),
        "whole": o.kind is int,
        **{"low": o.low, "high": o.high, "step": o.step, "default": o.default},
        "choices": o.choices,
        "sweep": [low, high] if numeric else None,
    }


class Page:
    """What the page asks of the server for its comparisons."""

    def __init__(self, function: CompareFunction) -> None:
        self._function = function

    async def run(self, request: gr.Request, asked: Any) -> AsyncGenerator[dict[str, Any]]:
        """Yields the comparison so far, with the number that the page gave it, or why there is none."""
        number = asked.get("number") if isinstance(asked, Mapping) else None
        self._function.stop(request.session_hash or "")  # an earlier one, whose connection is lost
        try:
            async with aclosing(self._function.states(_question(asked), visitor_of(request))) as states:
                async for state in states:
                    yield {"comparison": number, "state": state}
        except ChatError as refusal:
            yield {"comparison": number, "refusal": str(refusal)}
        except Exception:
            log.exception("a comparison failed")
            yield {"comparison": number, "refusal": BROKEN}

    async def stop(self, request: gr.Request, column: Any) -> None:
        """Ends a column, or all."""
        self._function.stop(request.session_hash or "", column if isinstance(column, int) else None)

    async def check(self, asked: Any) -> dict[str, Any]:
        """What can be said before: why columns are refused, and the GPU seconds of all others together.

        It has the number that the page gave it, because the columns may have changed since.
        """
        number = {"check": asked.get("check") if isinstance(asked, Mapping) else None}
        try:
            state, columns = await asyncio.to_thread(_question(asked).prepare)
            seconds = await asyncio.to_thread(comparison.gpu_seconds, columns)
        except ChatError as refusal:
            return number | {"refusal": str(refusal)}
        return number | {"errors": [each.error for each in state.columns], "seconds": seconds}


def _question(asked: Any) -> Question:
    values = asked if isinstance(asked, Mapping) else {}
    columns = values.get("columns")
    if isinstance(columns, Sequence) and all(isinstance(each, Mapping) for each in columns):
        columns = [{name: conversations.typed(name, value) for name, value in each.items()} for each in columns]
    return Question(
        values.get("message", ""), values.get("messages") or [], columns or [], checked_ids(values.get("ids") or [])
    )


def endpoint(function: CompareFunction) -> Any:
    """The function of /compare."""

    async def compare(
        message: str,
        columns: list[dict[str, Any]],
        messages: list[dict[str, Any]] | None = None,
        prompt_ids: list[int] | None = None,
        request: gr.Request | None = None,
    ) -> AsyncGenerator[dict[str, Any]]:
        """Answer a message in several columns, such as [{"strategy": "greedy"}, {"strategy": "sampling", "seed": 7}].

        Yields the comparison so far; docs/compare.md says what is in it. `messages` (a list of {"role", "content"})
        are those before this one, and `prompt_ids` its exact tokens where they are known.
        """
        try:
            question = Question(message, messages or [], columns, checked_ids(prompt_ids or []))
            status = ProgramStatus()
            taken = function.states(question, visitor_of(request), strict=True, waits=status.waits)
            async with aclosing(taken) as states:
                async for item in states:
                    yield item
                    status.tell()
        except ChatError as refusal:
            raise program_error(refusal) from refusal

    return compare


async def _compare_for_agent(page: Any, given: Mapping[str, Any], visitor: Visitor) -> AsyncGenerator[dict[str, Any]]:
    question = Question(given.get("message", ""), given.get("messages") or [], given.get("columns") or [], [])
    async with aclosing(page.comparisons.states(question, visitor, strict=True)) as states:
        async for state in states:
            yield state


def _told(state: Mapping[str, Any]) -> str:
    return "\n\n".join(f"{column['strategy']}: {column['error'] or column['text']}" for column in state["columns"])


TOOL = Tool(
    "compare",
    "Answer a message in several columns, each with its own settings, and measure the answers.",
    {
        "message": {"type": "string", "description": "The question."},
        "columns": {
            "type": "array",
            "minItems": comparison.MIN_COLUMNS,
            "maxItems": MAX_COLUMNS,
            "items": {"type": "object", "properties": SETTINGS, "additionalProperties": False},
            "description": 'Settings of each column, such as {"strategy": "sampling", "seed": 7}.',
        },
        "messages": PARAMETERS["messages"][1] | {"description": "The messages before this one."},
    },
    ("message", "columns"),
    _compare_for_agent,
    _told,
)


def add(page: Any, worker: comparison.GpuWorker | None) -> None:
    """Adds the endpoint /compare, and the events that connect compare.js to the server."""
    function = page.comparisons = CompareFunction(worker)
    served = Page(function)
    names = ("run-comparison", "stop-comparison", "check-comparison")
    run, stop, check = (gr.Button(name, elem_id=name, visible="hidden") for name in names)
    asked, said, found = (gr.JSON(visible=False) for _ in range(3))
    private: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    page.load(None, None, None, js="compare.start", queue=False, **private)
    running = run.click(
        served.run,
        asked,
        said,
        js="compare.asked",
        concurrency_limit=None,
        trigger_mode="multiple",
        postprocess=False,
        **private,
    )
    for after in (running.success, running.failure):
        after(None, None, None, js="compare.ended", queue=False, **private)
    stop.click(served.stop, asked, None, js="compare.toStop", queue=False, trigger_mode="multiple", **private)
    checked = check.click(
        served.check, asked, found, js="compare.toCheck", queue=False, trigger_mode="always_last", **private
    )
    checked.success(None, found, None, js="compare.checked", queue=False, **private)
    gr.api(endpoint(function), api_name="compare", concurrency_limit=None)
