"""/v1/completions: texts that go on, without a chat template, as harnesses for evaluation ask for them."""

import asyncio
import codecs
import threading
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request
from starlette.responses import JSONResponse, Response

from parley.api.openai import form
from parley.api.openai.doors import caller, streamed, whole
from parley.api.openai.requests import CompletionRequest, read
from parley.api.turns.answer_tokens import answer_tokens, finite
from parley.api.turns.program_turn import ProgramTurn, ProgramTurns, Progress, check_logprobs
from parley.errors import BadSetting, NotSupported
from parley.events import SHOWN, Answer, TokenScore
from parley.messages import Message, build_plain_text
from parley.serving import turn, turn_settings
from parley.serving.waiting_line import Visitor
from parley.settings import Settings


@dataclass
class Texts:
    """A checked request."""

    request: CompletionRequest
    asked: ProgramTurn
    prompts: Sequence[str | list[int]]
    scores: list[list[TokenScore]] = field(default_factory=list)  # of the prompts, where they are told

    @classmethod
    def of(cls, request: CompletionRequest) -> "Texts":
        """Checks what was asked. Raises `ChatError`."""
        n, limit = request.n or 1, 16 if request.max_tokens is None else request.max_tokens
        if limit == 0 and not request.echo:
            raise BadSetting("With max_tokens 0 there is nothing to answer. Set echo to true.", name="max_tokens")
        if request.best_of not in (None, n):
            raise NotSupported("best_of must be n. Leave it out.", name="best_of", valid=n)
        if request.suffix:
            raise NotSupported("A text cannot be filled in before a suffix. Leave it out.", name="suffix", valid=None)
        values = request.settings() | {"mode": "plain text", "max_new_tokens": max(limit, 1)}
        settings, prompts = turn_settings.read(values), request.prompts()
        asked = ProgramTurn([_prompt(each, settings) for each in prompts], n=n, candidates=request.logprobs)
        if request.logprobs is not None:
            check_logprobs(settings)
        asked.check()
        return cls(request, asked, prompts)

    @property
    def generates(self) -> bool:
        """Whether something follows the prompts."""
        return self.request.max_tokens != 0

    def prompt_scores(self, cancel: threading.Event) -> list[list[TokenScore]]:
        """The scores of the tokens of each prompt, for which each takes a pass."""
        shown = max(SHOWN, 2 * (self.request.logprobs or 0))
        return [turn.text_scores(self.asked.settings, each, shown=shown, cancel=cancel) for each in self.prompts]

    def echoed(self, number: int) -> str:
        """The prompt as it is echoed before this answer; empty where it is not."""
        prompt = self.prompts[number // self.asked.n]
        if not self.request.echo or isinstance(prompt, str):
            return prompt if self.request.echo and isinstance(prompt, str) else ""
        return b"".join(turn.token_bytes(self.asked.settings.model, prompt)).decode("utf-8", "replace")

    def logprobs(self, step: Progress, number: int) -> dict[str, Any] | None:
        """The tokens of the prompt, where it is echoed, and of what follows; None where they were not asked for."""
        count, processed = self.request.logprobs, self.request.processed
        if count is None:
            return None
        tokens = Tokens(count)
        if self.scores:
            scores = self.scores[number // self.asked.n]
            tokens.add_prompt(scores, turn.token_bytes(self.asked.settings.model, _all_ids(scores)))
        if self.generates and step.scores:
            for each in answer_tokens(step.answers[number], step.scores[number], self.asked.settings.model):
                top = {name(each.bytes_of(other)): value for other, value in each.candidates(count, processed)}
                tokens.add(each.piece, each.logprob(processed), top)
        return tokens.as_data()


class Tokens:
    """Tokens in the old form of the OpenAI API."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._length = 0
        self._rows = list[tuple[str, float | None, dict[str, float] | None, int]]()

    def add_prompt(self, scores: Sequence[TokenScore], pieces: Sequence[bytes]) -> None:
        """Adds the tokens of a prompt. Nothing says anything of the first one."""
        own = dict(zip(_all_ids(scores), pieces, strict=True))
        for i, each in enumerate(scores):
            best = sorted(each.candidates, key=lambda one: one.logprob, reverse=True)[: self._count]
            top = {name(own[one.id]): finite(one.logprob) for one in best}
            self.add(own[each.id], finite(each.logprob) if i else None, top if i else None)

    def add(self, piece: bytes, logprob: float | None, top: dict[str, float] | None) -> None:
        """Adds one token. It is among its candidates, too, as in the OpenAI API."""
        if top is not None and logprob is not None and self._count:
            top.setdefault(name(piece), logprob)
        self._rows.append((name(piece), logprob, top if self._count else None, self._length))
        self._length += len(self._decoder.decode(piece))

    def as_data(self) -> dict[str, Any]:
        """The four lists."""
        names = ("tokens", "token_logprobs", "top_logprobs", "text_offset")
        return {each: [row[i] for row in self._rows] for i, each in enumerate(names)}


def name(piece: bytes) -> str:
    """The name of a token: its text or, for a part of a character, its bytes."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{each:02x}" for each in piece)


def _all_ids(scores: Sequence[TokenScore]) -> list[int]:
    found = dict.fromkeys(each.id for each in scores)
    return list(found | dict.fromkeys(one.id for each in scores for one in each.candidates))


def _prompt(prompt: str | list[int], settings: Settings) -> tuple[Sequence[Message], Settings]:
    if isinstance(prompt, str):
        return build_plain_text([], prompt), settings
    return [Message("user", "")], settings.model_copy(update={"prompt_ids": tuple(prompt)})


async def completions(request: Request, body: Any) -> Response:
    """Goes on with texts, whole or as a stream."""
    asked: CompletionRequest = read(CompletionRequest, body)
    texts = await asyncio.to_thread(Texts.of, asked)
    steps = _steps(texts, request.app.get_blocks().turns, caller(request))
    if asked.stream:
        return await streamed(_chunks(texts, steps))
    last: Progress = await whole(request, steps)
    return JSONResponse(await asyncio.to_thread(_completion, texts, last))


async def _steps(texts: Texts, turns: ProgramTurns, visitor: Visitor) -> AsyncGenerator[Progress]:
    """How far the texts have come. The prompts are scored first."""
    nothing = Progress([Answer() for _ in range(texts.asked.count)])
    if texts.request.echo and texts.request.logprobs is not None:
        async with aclosing(turns.read(texts.asked.settings, texts.prompt_scores, visitor)) as results:
            async for scores in results:
                texts.scores = scores or []
                yield nothing
    if not texts.generates:
        yield Progress([Answer(finish="length") for _ in range(texts.asked.count)])
        return
    async with aclosing(turns.progress(texts.asked, visitor)) as steps:
        async for step in steps:
            yield step


def _envelope(texts: Texts) -> form.Envelope:
    return form.Envelope("cmpl", "text_completion", texts.asked.settings.model)


def _usage(texts: Texts, last: Progress) -> dict[str, Any]:
    if texts.generates:
        return form.usage(last.answers, len(texts.prompts))
    known: Sequence[Sequence[Any]] = texts.scores or [_ids(each, texts.asked.settings) for each in texts.prompts]
    count = sum(len(each) for each in known)
    return {"prompt_tokens": count, "completion_tokens": 0, "total_tokens": count}


def _ids(prompt: str | list[int], settings: Settings) -> Sequence[Any]:
    return turn.tokenize(settings, prompt)[0] if isinstance(prompt, str) else prompt


def _completion(texts: Texts, last: Progress) -> dict[str, Any]:
    choices = [
        _choice(i, texts.echoed(i) + answer.text, texts.logprobs(last, i), form.finish_reason(answer))
        for i, answer in enumerate(last.answers)
    ]
    return _envelope(texts).wrap(last.answers, choices, usage=_usage(texts, last))


async def _chunks(texts: Texts, progress: AsyncGenerator[Progress]) -> AsyncGenerator[dict[str, Any] | None]:
    envelope, more = _envelope(texts), {"usage": None} if texts.request.include_usage else {}
    count = texts.asked.count
    sent, over = [""] * count, [False] * count
    searches = texts.asked.settings.effective_strategy.searches
    last = Progress([])
    async with aclosing(progress) as steps:
        async for last in steps:
            made = []
            for i, answer in enumerate(last.answers):
                if over[i] or not (answer.text or answer.finish) or (searches and not answer.finish):
                    continue
                text = await asyncio.to_thread(texts.echoed, i) + answer.text if answer.text or answer.finish else ""
                over[i] = bool(answer.finish)
                logprobs = await asyncio.to_thread(texts.logprobs, last, i) if over[i] else None
                made.append(_choice(i, text.removeprefix(sent[i]), logprobs, form.finish_reason(answer)))
                sent[i] = text
            for each in made:
                yield envelope.wrap(last.answers, [each], **more)
            if not made:
                yield None
    if texts.request.include_usage:
        yield envelope.wrap(last.answers, [], usage=await asyncio.to_thread(_usage, texts, last))


def _choice(number: int, text: str, logprobs: Mapping[str, Any] | None, reason: str | None) -> dict[str, Any]:
    return {"index": number, "text": text, "logprobs": logprobs, "finish_reason": reason}
