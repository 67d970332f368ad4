"""/v1/chat/completions."""

import asyncio
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request
from starlette.responses import JSONResponse, Response

from parley.api.openai import form
from parley.api.openai.doors import caller, streamed, whole
from parley.api.openai.forcing import forced_call, forced_format, forces_call
from parley.api.openai.requests import ChatRequest, read
from parley.api.turns.answer_tokens import answer_tokens
from parley.api.turns.program_turn import ProgramTurn, ProgramTurns, Progress
from parley.errors import BadSetting, NotSupported
from parley.events import Answer
from parley.messages import ToolCall
from parley.models import registry
from parley.models.tools.dialects import DIALECTS, NO_TOOLS, ToolDialect
from parley.models.tools.parser import split_calls


@dataclass
class Chat:
    """A checked request, and what was made of its answers so far."""

    request: ChatRequest
    asked: ProgramTurn
    dialect: ToolDialect | None  # None: no tools were given
    ids: dict[tuple[int, int], str] = field(default_factory=dict)  # of the calls, by answer and number

    @classmethod
    def of(cls, request: ChatRequest, session: str) -> "Chat":
        """Checks what was asked. Reads the small files of the model. Raises `ChatError`."""
        values, forces = request.settings() | forced_format(request), forces_call(request)
        if request.reasoning_effort is not None:
            values |= {"reasoning_effort": request.reasoning_effort}
        tools = checked_tools(request.tools) if request.tool_choice != "none" else ()
        more: dict[str, Any] = {"n": request.n, "candidates": request.candidates, "session": session}
        turn = ProgramTurn.of(request.messages, values, **more)
        if not tools:
            return cls(request, turn, None)
        spec = registry.find(turn.settings.model)
        dialect = DIALECTS.get(registry.traits(spec).tools)
        if dialect is None:
            raise NotSupported(NO_TOOLS.format(label=spec.label), name="tools", valid=[])
        if forces:
            turn = ProgramTurn.of(request.messages, values | forced_call(request, dialect), **more)
        return cls(request, turn.with_tools(tools), dialect)

    def message(self, number: int, answer: Answer) -> tuple[str, str, list[ToolCall]]:
        """The text, the thought and the calls of an answer so far."""
        text, thought = self.asked.begun.text + answer.text, self.asked.begun.thought + answer.thought
        if self.dialect is None:
            return text, thought, []
        found = split_calls(text, self.dialect, over=bool(answer.finish))
        calls = list(found.calls)[: 1 if self.request.parallel_tool_calls is False else None]
        return found.text, thought, [self._named(number, i, each) for i, each in enumerate(calls)]

    def _named(self, number: int, index: int, call: ToolCall) -> ToolCall:
        made = self.ids.setdefault((number, index), f"call_{uuid.uuid4().hex[:24]}")
        return call._replace(id=made)

    def logprobs(self, step: Progress, number: int) -> dict[str, Any] | None:
        """The tokens of an answer; None where they were not asked for."""
        if self.asked.candidates is None or not step.scores:
            return None
        tokens = answer_tokens(step.answers[number], step.scores[number], self.asked.settings.model)
        return form.chat_logprobs(tokens, self.asked.candidates, self.request.processed)


def checked_tools(tools: Sequence[Mapping[str, Any]] | None) -> tuple[Mapping[str, Any], ...]:
    """The tools. Raises `BadSetting` for what is no description of a function."""
    for each in tools or ():
        function = each.get("function")
        if each.get("type") != "function" or not isinstance(function, Mapping) or not function.get("name"):
            sentence = 'A tool must be an object such as {"type": "function", "function": {"name": "add"}}.'
            raise BadSetting(sentence, name="tools", valid={"type": "function", "function": {"name": "add"}})
    return tuple(tools or ())


async def chat_completions(request: Request, body: Any) -> Response:
    """Answers a conversation, whole or as a stream."""
    asked: ChatRequest = read(ChatRequest, body)
    visitor = caller(request)
    session = f"{visitor.name} {asked.prompt_cache_key}" if asked.prompt_cache_key else ""
    chat = await asyncio.to_thread(Chat.of, asked, session)
    turns: ProgramTurns = request.app.get_blocks().turns
    steps = turns.progress(chat.asked, visitor)
    if asked.stream:
        return await streamed(_chunks(chat, steps))
    last: Progress = await whole(request, steps)
    return JSONResponse(await asyncio.to_thread(_completion, chat, last))


def _completion(chat: Chat, last: Progress) -> dict[str, Any]:
    choices = []
    for number, answer in enumerate(last.answers):
        text, thought, calls = chat.message(number, answer)
        content = text if text or not calls else None
        message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
        message |= {"reasoning_content": thought} if thought else {}
        message |= {"tool_calls": form.tool_calls(calls)} if calls else {}
        reason = form.finish_reason(answer, calls)
        logprobs = chat.logprobs(last, number)
        choices.append({"index": number, "message": message, "logprobs": logprobs, "finish_reason": reason})
    envelope = form.Envelope("chatcmpl", "chat.completion", chat.asked.settings.model)
    return envelope.wrap(last.answers, choices, usage=form.usage(last.answers))


async def _chunks(chat: Chat, progress: AsyncGenerator[Progress]) -> AsyncGenerator[dict[str, Any] | None]:
    """The chunks of a stream, and None where there is nothing new."""
    envelope = form.Envelope("chatcmpl", "chat.completion.chunk", chat.asked.settings.model)
    more = {"usage": None} if chat.request.include_usage else {}
    sent = [_Sent() for _ in range(chat.asked.n)]
    last = Progress([])
    async with aclosing(progress) as steps:
        async for last in steps:
            made = list[dict[str, Any]]()
            for i, answer in enumerate(last.answers):
                logprobs = await asyncio.to_thread(chat.logprobs, last, i) if last.scores else None
                made += sent[i].chunks(chat, i, answer, logprobs)
            for each in made:
                yield envelope.wrap(last.answers, [each], **more)
            if not made:
                yield None
    if chat.request.include_usage:
        yield envelope.wrap(last.answers, [], usage=form.usage(last.answers))


@dataclass
class _Sent:
    """What was sent of one answer of a stream."""

    begun: bool = False
    text: str = ""
    thought: str = ""
    calls: int = 0
    over: bool = False

    def chunks(self, chat: Chat, number: int, answer: Answer, logprobs: dict[str, Any] | None) -> list[dict[str, Any]]:
        """The choices that tell what is new in this answer."""
        if self.over or (not answer.text and not answer.thought and not answer.finish):
            return []
        text, thought, calls = chat.message(number, answer)
        if chat.asked.settings.effective_strategy.searches and not answer.finish:
            return []  # a search rewrites its text, and what was sent cannot be taken back
        deltas: list[dict[str, Any]] = []
        if new := _rest(thought, self.thought):
            deltas.append({"reasoning_content": new})
        if new := _rest(text, self.text):
            deltas.append({"content": new})
        deltas += [{"tool_calls": [each]} for each in form.tool_calls(calls[self.calls :], self.calls, numbered=True)]
        if not self.begun and (deltas or answer.finish):
            deltas.insert(0, {"role": "assistant", "content": ""})
        self.begun, self.text, self.thought, self.calls = bool(deltas) or self.begun, text, thought, len(calls)
        made = [_choice(number, each) for each in deltas]
        if answer.finish:
            self.over = True
            made += [_choice(number, {"content": ""}, logprobs)] if logprobs else []
            made.append(_choice(number, {}, None, form.finish_reason(answer, calls)))
        return made


def _choice(
    number: int, delta: dict[str, Any], logprobs: dict[str, Any] | None = None, reason: str | None = None
) -> dict[str, Any]:
    return {"index": number, "delta": delta, "logprobs": logprobs, "finish_reason": reason}


def _rest(text: str, sent: str) -> str:
    """What is new in a text; all of it where it does not go on from what was sent, which a mark made a thought."""
    return text.removeprefix(sent)
