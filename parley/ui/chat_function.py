"""The chat function, behind the page and the API: checks the settings, runs the turn, and yields the answer so far."""

import asyncio
import inspect
import uuid
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import gradio as gr

from parley.api.turns.cancelling import cancellable_call
from parley.api.turns.failures import explained, program_error
from parley.api.turns.gpu_queue import leave_gpu_queue
from parley.api.turns.turn_runner import Reply, TurnRunner, Waits, build_prompt
from parley.api.visitors import ProgramStatus, visitor_of
from parley.errors import ChatError
from parley.events import Answer
from parley.serving import turn, turn_settings
from parley.serving.turn_thread import TurnThread
from parley.settings import OPTIONS


class ChatFunction:
    """Answers the visitors of one page with `reply`. Keeps the running turns by session, so that Stop finds a turn."""

    def __init__(self, reply: Reply) -> None:
        self.runner = TurnRunner(reply)
        self._running: dict[str, TurnThread] = {}  # by session

    def stop(self, request: gr.Request) -> None:
        """Stops this visitor's turn. The chat then ends as usual, with the answer so far."""
        if running := self._running.get(request.session_hash or ""):
            running.stop()

    async def take_turn(
        self,
        message: str,
        history: Sequence[Any],
        values: Sequence[Any],
        request: gr.Request,
        generated: Sequence[int] = (),
        *,
        given: Sequence[int] = (),
        waits: Waits = lambda _: None,
    ) -> AsyncGenerator[tuple[Answer, ChatError | None]]:
        """Yields the answer so far, and last what went wrong, if anything did. For the tokens see `turn.reply`.

        `waits` is told the place in the line.
        """
        run_id, session, answer = uuid.uuid4().hex, request.session_hash or "", Answer()
        running = self._running[session] = TurnThread(lambda: turn.stop(run_id), leave_gpu_queue)
        try:
            settings = await asyncio.to_thread(turn_settings.read, dict(zip(OPTIONS, values, strict=True)))
            messages, begun = await asyncio.to_thread(build_prompt, message, history, settings)
            more: dict[str, Any] = {"session": session, "generated": generated, "given": given, "waits": waits}
            taken = self.runner.answers(running, run_id, messages, settings, visitor_of(request), **more)
            with cancellable_call(running.stop):
                async with aclosing(taken) as answers:
                    async for made in answers:
                        answer = replace(made, text=begun.text + made.text, thought=begun.thought + made.thought)
                        yield answer, None
        except Exception as error:
            yield answer, explained(error)
        finally:
            if self._running.get(session) is running:
                del self._running[session]

    async def chat(self, message: str, history: list[dict], *rest: Any) -> AsyncGenerator[str]:
        """Answer a message. Yields the answer so far.

        The server keeps the conversation of each client, unless `messages` (a list of {"role", "content"}) has the
        messages before this one. A setting that is left out takes the value that the model recommends.
        """
        *values, messages, request = rest
        status = ProgramStatus()
        earlier = history if messages is None else messages
        taken = self.take_turn(message, earlier, values, request, waits=status.waits)
        async with aclosing(taken) as answers:
            async for answer, error in answers:
                if error:
                    raise program_error(error)
                yield answer.text
                status.tell()


def with_named_parameters(chat: Callable[..., Any]) -> Callable[..., Any]:
    """`chat` with one parameter per setting: Gradio takes the API's parameter names from the signature."""

    async def named(*values: Any) -> AsyncGenerator[Any]:
        async with aclosing(chat(*values)) as answers:
            async for answer in answers:
                yield answer

    plain = inspect.Parameter.POSITIONAL_OR_KEYWORD
    types = {"message": str, "history": list, **{n: o.kind for n, o in OPTIONS.items()}, "messages": list}
    parameters = [inspect.Parameter(n, plain, default=None, annotation=t) for n, t in types.items()]
    request = inspect.Parameter("request", plain, default=None, annotation=gr.Request)
    vars(named)["__signature__"] = inspect.Signature([*parameters, request])
    named.__annotations__ = types | {"request": gr.Request}
    named.__doc__ = chat.__doc__
    return named
