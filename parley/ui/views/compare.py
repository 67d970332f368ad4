"""The comparison on the page (compare.js, compare_view.js) and the endpoint /compare."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import gradio as gr

from parley.api.endpoints import checked_ids
from parley.errors import ChatError
from parley.serving import comparison
from parley.ui.views.comparison_stream import CompareFunction, Question, program_error


def endpoint(function: CompareFunction) -> Any:
    """The function of /compare."""

    async def compare(
        message: str,
        columns: list[dict[str, Any]],
        messages: list[dict[str, Any]] | None = None,
        prompt_ids: list[int] | None = None,
        request: gr.Request | None = None,
    ) -> AsyncGenerator[dict[str, Any]]:
        """Answer a message in two to six columns, each with settings of its own. Yields the comparison so far.

        `columns` is a list of settings such as [{"strategy": "greedy"}, {"strategy": "sampling", "seed": 7}]. A
        setting that is left out takes the value that the model recommends. `messages` (a list of {"role", "content"})
        are those before this one, and `prompt_ids` its exact tokens where they are known.

        Each item has "columns", in which "text" and "thought" grow, "beams" are the candidates, "finish" says how it
        ended, "error" is a sentence, "settings" has the seed that was used, and "stored" the tokens. The last item,
        where "over" is true, has all "figures": tokens_per_second, time_to_first_token, logprob (the mean in nats, by
        the column's own model), perplexity (only where all columns have one tokenizer), bits_per_byte (where they have
        not, by the model "scored_by"), distinct_2, repeated_4grams, words, tokens. "notices" says what to know of all.
        """
        try:
            question = Question(message, messages or [], columns, checked_ids(prompt_ids or []))
            session = (request and request.session_hash) or ""
            async with aclosing(function.states(question, session, strict=True)) as states:
                async for item in states:
                    yield item
        except ChatError as refusal:
            raise program_error(refusal) from refusal

    return compare


def add(worker: comparison.GpuWorker | None) -> None:
    """Adds the endpoint /compare to the present `gr.Blocks` context."""
    function = CompareFunction(worker)
    gr.api(endpoint(function), api_name="compare", concurrency_limit=None)
