"""A turn of a program: one conversation, and one answer or several, which begin from one reading of the prompt."""

import asyncio
import functools
import threading
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from parley.api.turns.cancelling import cancellable_call
from parley.api.turns.failures import explained
from parley.api.turns.gpu_queue import leave_gpu_queue
from parley.api.turns.turn_runner import TurnRunner, Waits, build_prompt, waiting_status
from parley.errors import BadSetting, ChatError, NotSupported
from parley.events import SHOWN, Answer, ColumnEvent, Delta, TokenScore
from parley.messages import Message
from parley.models import registry
from parley.serving import comparison, gpu_choices, turn, turn_settings
from parley.serving.column_batch import Column
from parley.serving.gpu_choices import ScoredAnswer
from parley.serving.operations import ending
from parley.serving.turn_thread import TurnThread
from parley.serving.waiting_line import LINE, POLL_SECONDS, Visitor
from parley.settings import Settings
from parley.strategies.seed import fresh_seed

T = TypeVar("T")
WITH_SETTINGS = {"chat": "message", "generate": "messages"}  # endpoints of Gradio's, and where the text goes
MAX_ANSWERS = 8  # of one prompt
MAX_CANDIDATES = 20  # of a token, as in the OpenAI API


@dataclass(frozen=True)
class ProgramTurn:
    """What a program asks. Every value is checked."""

    prompts: Sequence[tuple[Sequence[Message], Settings]]  # of one model and strategy
    begun: Answer = field(default_factory=Answer)  # the words with which each answer has to begin
    n: int = 1  # answers to each prompt
    candidates: int | None = None  # of each token; None: no probabilities are asked for
    session: str = ""  # turns of one session may share what was read of their prompts

    @classmethod
    def of(
        cls, messages: Any, values: Mapping[str, Any], *, n: Any = None, candidates: Any = None, session: str = ""
    ) -> "ProgramTurn":
        """Checks what a program sent. Reads the small files of the model, perhaps from the network.

        `messages` are in the form of the OpenAI API, or one text. Raises `ChatError`.
        """
        settings = turn_settings.read(values)
        history = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
        prompt, begun = build_prompt("", history, settings)
        n = _whole("n", 1 if n is None else n, 1, MAX_ANSWERS)
        if candidates is not None:
            candidates = _whole("logprobs", candidates, 0, MAX_CANDIDATES)
            check_logprobs(settings)
        made = cls([(prompt, settings)], begun, n, candidates, session)
        made.check()
        return made

    def with_tools(self, tools: Sequence[Mapping[str, Any]]) -> "ProgramTurn":
        """The same with tools for the chat template."""
        given = {"tools": tuple(tools)}
        return replace(self, prompts=[(each, settings.model_copy(update=given)) for each, settings in self.prompts])

    def check(self) -> None:
        """Raises `NotSupported` for several answers that would be the same."""
        strategy = self.settings.effective_strategy
        if strategy.searches and self.n > (most := strategy.num_beams(self.settings)):
            sentence = (
                f"This search keeps {most} beams, so n may be 1 to {most}. Lower n, or raise the number of beams."
            )
            raise BadSetting(sentence, name="n", valid={"type": "integer", "minimum": 1, "maximum": most})
        if self.n > 1 and not strategy.samples and not strategy.searches:
            sentence = f"{strategy.label} gives the same answer each time. Set n to 1, or choose sampling or beams."
            raise NotSupported(sentence, name="n", valid=1)

    @property
    def count(self) -> int:
        """How many answers it gets, to all of its prompts."""
        return len(self.prompts) * self.n

    @property
    def settings(self) -> Settings:
        """The settings of all answers but for their seeds and the tokens of their prompts."""
        return self.prompts[0][1]

    @property
    def width(self) -> int:
        """How many answers come of one column: the hypotheses of a search, or one that is drawn."""
        return self.n if self.settings.effective_strategy.searches else 1

    @functools.cached_property
    def columns(self) -> list[Column]:
        """What makes its answers, as columns of a comparison. The first to a prompt has the seed of the settings."""
        made = list[Column]()
        for messages, settings in self.prompts:
            seed = fresh_seed() if settings.seed is None else settings.seed
            for i in range(self.n // self.width):
                given = {"seed": (seed + i) % 2**32, "num_return_sequences": self.width}
                seeded = settings.model_copy(update=given)
                made.append(Column(len(made), messages, seeded, measured=False))
        return made

    def answers(self, made: Answer) -> list[Answer]:
        """The answers of one column: what it has made or, of a search, its best hypotheses, best first."""
        if self.width == 1:
            return [made]
        if not made.finish:
            others = [replace(made, text=each.text, thought="") for each in made.beams[1 : self.width]]
            return [made, *others, *[Answer()] * (self.width - 1 - len(others))]
        found = [_told(made, each) for each in made.hypotheses] or [made]
        notice = f"The search has found no more different answers than {len(found)}, so the last one is repeated."
        last = found[-1] + Delta(notices=(notice,) if made.finish != "stopped" else ())
        return found + [last] * (self.width - len(found))

    def scores(self, answers: Mapping[int, Answer], cancel: threading.Event) -> list[list[TokenScore]]:
        """Why each token of all answers of these columns was chosen. Raises `ChatError`."""
        shown = max(SHOWN, 2 * (self.candidates or 0))  # the best by the model, and the best after the processors
        scored = [self._scored(number, one) for number, each in answers.items() for one in self.answers(each)]
        return gpu_choices.scores(scored, shown, cancel)

    def _scored(self, number: int, answer: Answer) -> ScoredAnswer:
        messages, settings = self.prompts[number * self.width // self.n]
        prompt = answer.origin.prompt_ids if answer.origin else ()
        seeded = settings.model_copy(update={"seed": answer.seed})
        return ScoredAnswer(messages, seeded, answer.ids, prompt)


def _told_answers(asked: ProgramTurn, step: "Progress") -> "Progress":
    """The step with all hypotheses of its searches. Where scores are asked for, an answer ends once it has them."""
    answers = [one for each in step.answers for one in asked.answers(each)]
    if asked.candidates is not None:
        scores = step.scores or [()] * len(answers)
        known = zip(answers, scores, strict=True)
        answers = [replace(each, finish=None) if each.ids and not its else each for each, its in known]
    return replace(step, answers=answers)


def _told(made: Answer, hypothesis: Answer) -> Answer:
    """A hypothesis as an answer, with what is known of its search."""
    usage = replace(made.usage, new_tokens=len(hypothesis.ids)) if made.usage else None
    known = {name: getattr(hypothesis, name) for name in ("text", "thought", "beams", "finish", "ids")}
    return replace(made, usage=usage, hypotheses=(), **known)


def check_logprobs(settings: Settings) -> None:
    """Raises `NotSupported` for a model whose probabilities are not seen from here."""
    spec = registry.find(settings.model)
    if spec.engine != "local":
        sentence = f"{spec.label} tells no probabilities here. Leave out logprobs, or choose a model that runs here."
        raise NotSupported(sentence, name="logprobs", valid=[None])


def _whole(name: str, value: Any, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        sentence = f"{name} must be a whole number from {low} to {high}."
        raise BadSetting(sentence, name=name, valid={"type": "integer", "minimum": low, "maximum": high})
    return value


@dataclass(frozen=True)
class Progress:
    """How far a turn has come."""

    answers: Sequence[Answer]
    status: str = ""  # what it waits for, before the first text
    waiting: float | None = None  # seconds until it was admitted; None: it still waits
    scores: Sequence[Sequence[TokenScore]] = ()  # of each answer, once it is over, where they were asked for

    @property
    def over(self) -> bool:
        """Whether all answers are finished."""
        return all(each.finish for each in self.answers)


class ProgramTurns:
    """Runs the turns of programs. `worker` runs several answers at once in a GPU process of ZeroGPU."""

    def __init__(self, runner: TurnRunner, worker: comparison.GpuWorker | None = None) -> None:
        self._runner, self._worker = runner, worker

    async def progress(
        self, asked: ProgramTurn, visitor: Visitor, waits: Waits = lambda _: None
    ) -> AsyncGenerator[Progress]:
        """Yields how far the turn has come, at least every 0.25 seconds, and at last all that is known.

        A cancelled call ends with what there is. Raises `ChatError`. `waits` is told the place in the line.
        """
        try:
            steps = (
                self._several(asked, visitor, waits) if len(asked.columns) > 1 else self._one(asked, visitor, waits)
            )
            async with aclosing(steps) as made:
                async for step in made:
                    yield _told_answers(asked, step)
        except Exception as error:
            raise explained(error) from error

    async def read(
        self, settings: Settings, work: Callable[[threading.Event], T], visitor: Visitor
    ) -> AsyncGenerator[T | None]:
        """Waits for a place and does what only reads. Yields None at least every 0.25 seconds, and then the result."""
        with LINE.enter(visitor, [registry.find(settings.model)]) as ticket:
            async with aclosing(ticket.places()) as places:
                async for _ in places:
                    yield None
            async with aclosing(awaited(work)) as results:
                async for each in results:
                    yield each

    async def _one(self, asked: ProgramTurn, visitor: Visitor, waits: Waits) -> AsyncGenerator[Progress]:
        run_id, began, waiting = uuid.uuid4().hex, time.monotonic(), None
        running = TurnThread(lambda: turn.stop(run_id), leave_gpu_queue)
        ((messages, settings),) = asked.prompts
        settings = settings.model_copy(update={"num_return_sequences": asked.width})
        taken = self._runner.answers(running, run_id, messages, settings, visitor, waits=waits, session=asked.session)
        last = Progress([Answer()])
        with cancellable_call(running.stop):
            async with aclosing(taken) as answers:
                async for answer in answers:
                    if waiting is None and running.begun:
                        waiting = time.monotonic() - began
                    step = Progress([answer], answer.status, waiting)
                    if not step.over:
                        last = step
                        yield step
                        continue
                    async with aclosing(_scored(asked, step, last)) as steps:
                        async for each in steps:
                            yield each

    async def _several(self, asked: ProgramTurn, visitor: Visitor, waits: Waits) -> AsyncGenerator[Progress]:
        """Several answers as columns of comparisons, for each of which a prompt is read once."""
        last = Progress([Answer() for _ in asked.columns])
        for first in range(0, len(last.answers), MAX_ANSWERS):
            columns = asked.columns[first : first + MAX_ANSWERS]
            async with aclosing(self._together(asked, columns, last, visitor, waits)) as steps:
                async for last in steps:
                    if not last.over:
                        yield last
        yield last

    async def _together(
        self, asked: ProgramTurn, columns: Sequence[Column], last: Progress, visitor: Visitor, waits: Waits
    ) -> AsyncGenerator[Progress]:
        """Answers these columns. `last` has the answers of all, those before these columns already made."""
        run_id, began = uuid.uuid4().hex, time.monotonic()
        running = TurnThread(lambda: comparison.stop(run_id, columns), leave_gpu_queue)
        start = functools.partial(comparison.compare, run_id, columns, asked.session, worker=self._worker)
        with cancellable_call(running.stop), LINE.enter(visitor, [each.spec for each in columns]) as ticket:
            async with aclosing(ticket.places()) as places:
                async for place in places:
                    if running.stopped:
                        break
                    waits(place)
                    yield replace(last, status=waiting_status(place))
            waiting = time.monotonic() - began if last.waiting is None else last.waiting
            last = replace(last, waiting=last.waiting if running.stopped else waiting)
            if not running.stopped:
                async with aclosing(running.deltas(start)) as events:
                    async for event in events:
                        ticket.record.saw(event)
                        answers = _with(last.answers, event)
                        last = replace(last, answers=answers, status=answers[columns[0].number].status)
                        if not all(answers[each.number].finish for each in columns):
                            yield last
            ended = {each.number for each in columns}
            stopped = [
                a + Delta(finish="stopped") if i in ended and not a.finish else a for i, a in enumerate(last.answers)
            ]
            async with aclosing(_scored(asked, replace(last, answers=stopped), last, ended)) as steps:
                async for each in steps:
                    yield each


async def _scored(
    asked: ProgramTurn, step: Progress, before: Progress, numbers: Collection[int] = (0,)
) -> AsyncGenerator[Progress]:
    """The step with the scores of these answers, where they are asked for; meanwhile `before`, again and again."""
    if asked.candidates is None:
        yield step
        return

    def work(gone: threading.Event) -> list[Sequence[TokenScore]]:
        made = iter(asked.scores({i: step.answers[i] for i in sorted(numbers)}, gone))
        known = list(step.scores) or [()] * len(step.answers) * asked.width
        return [next(made) if i // asked.width in numbers else each for i, each in enumerate(known)]

    async with aclosing(awaited(work)) as results:
        async for scores in results:
            yield before if scores is None else replace(step, scores=scores)


async def awaited(work: Callable[[threading.Event], T]) -> AsyncGenerator[T | None]:
    """Runs this in a thread. Yields None at least every 0.25 seconds, and then the result.

    Where nobody waits for it any more, the event is set that `work` gets.
    """
    gone = threading.Event()
    working = asyncio.ensure_future(asyncio.to_thread(work, gone))
    try:
        while not (await asyncio.wait([working], timeout=POLL_SECONDS))[0]:
            if ending.CUT.is_set():  # the app ends
                raise ending.refusal()
            yield None
        yield working.result()
    finally:
        gone.set()


def _with(answers: Sequence[Answer], event: ColumnEvent | Delta) -> list[Answer]:
    """The answers with what is new. Raises `ChatError` for what went wrong in one of them."""
    if isinstance(event, ColumnEvent) and event.error:
        raise ChatError(event.error, code=event.code)
    if isinstance(event, Delta) or event.column is None or not event.delta:
        return list(answers)
    return [each + event.delta if i == event.column else each for i, each in enumerate(answers)]
