"""The engine for a model on a chat completions server: the owner's server, or one of the Inference Providers."""

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from parley.config import EXTRA_REMOTE_SETTINGS, MAX_TURN_SECONDS
from parley.engines.base import Engine, TurnRequest
from parley.engines.remote import errors, logprobs
from parley.engines.remote.stream import NO_KEY, StreamState, drain, open_stream
from parley.errors import BadSetting
from parley.events import FLUSH, Answer, Choices, Delta, RunRecord
from parley.generation.reasoning_parser import split_thought
from parley.messages import Message
from parley.models.reasoning_dialects import THINK
from parley.models.remote_servers import Server
from parley.models.spec import ModelSpec
from parley.settings import Settings
from parley.snippet import call, listed, named
from parley.strategies.seed import fresh_seed

GO_ON = "Go on with your last answer exactly where it stopped. Repeat nothing of it, and say nothing else first."
MAX_SILENCE_SECONDS = 120.0  # long, because a server may load its model first
USAGE_GRACE_SECONDS = 1.0  # how long a finished answer waits for its usage
NO_TEXTS = "The server of {label} scores only what it writes itself. Choose a model that runs here."
NO_LOGPROBS = "The server of {label} tells no probabilities. Choose a model that runs here."
ASKED_AGAIN = "The server was asked again for these probabilities."
OTHER_WORDS = "The server was asked again for these probabilities, and wrote other words, which are shown here."
_log = logging.getLogger(__name__)


class RemoteEngine(Engine):
    """Answers with a model on a server. Any number of turns can run at a time."""

    def __init__(
        self,
        spec: ModelSpec,
        server: Server,
        turn_seconds: float = MAX_TURN_SECONDS.default,
        silence: float = MAX_SILENCE_SECONDS,
    ) -> None:
        self._spec = spec
        self._server = server
        self._turn_seconds = turn_seconds
        self._max_silence = silence

    def stream(self, request: TurnRequest) -> Iterator[Delta]:
        """See `Engine.stream`; closing the iterator closes the connection.

        After the server fails, yields the text that arrived before and then raises `ServerFault`.
        """
        yield from self._deltas(request, StreamState(request.settings, _messages_to_send(request.messages)[1]))

    def choices(self, request: TurnRequest, answer: str | Sequence[int], *, prompt: bool = True) -> Choices:
        """See `Engine.choices`. Asks the server again, because it tells the probabilities of its own words only.

        Raises `BadSetting` where it tells none.
        """
        if not request.messages:
            raise BadSetting(NO_TEXTS.format(label=self._spec.label))
        state = StreamState(request.settings, _messages_to_send(request.messages)[1])
        made = Answer.of(self._deltas(request, state, logprobs.ARGUMENTS))
        if not state.scores:
            raise BadSetting(NO_LOGPROBS.format(label=self._spec.label))
        return Choices((), tuple(state.scores), notes=(ASKED_AGAIN,) if made.text == answer else (OTHER_WORDS,))

    def _deltas(
        self, request: TurnRequest, state: StreamState, asked: Mapping[str, Any] = MappingProxyType({})
    ) -> Iterator[Delta]:
        """The answer; `asked` are further arguments of the request."""
        settings, cancel = request.settings, request.cancel
        if refusal := self._spec.capabilities.refusal(self._spec.label, settings):
            raise BadSetting(refusal)
        arguments = self._arguments(_messages_to_send(request.messages)[0], request) | dict(asked)
        deadline = time.monotonic() + self._turn_seconds
        with open_stream(self._server, arguments) as inbox:
            while not state.over and not cancel.is_set() and time.monotonic() < deadline:
                items = drain(inbox)
                yield state.take(items)
                if state.silence > (USAGE_GRACE_SECONDS if state.finish else self._max_silence):
                    state.end(errors.ServerError(errors.SILENT.replace("{seconds}", f"{self._max_silence:g}")))
                if items and not state.over:
                    cancel.wait(FLUSH)
        text, thought = state.parser.feed("", last=True)
        folded = state.parser.folded
        if state.fault:
            yield Delta(text=text, thought=thought, replaces=folded)
            _log.warning("%s: %s", self._spec.name, type(state.fault).__name__)
            names = {"name": self._spec.label, "key": self._server.key, "key_name": self._server.key_name}
            raise errors.to_sentence(state.fault, bool(state.num_chunks), **names) from None
        usage, finish = state.usage(), state.finish or ("stopped" if cancel.is_set() else "time")
        if finish == "length" and usage.unit == "token" and usage.new_tokens < settings.max_new_tokens:
            finish = "context"
        yield Delta(
            text=text,
            thought=thought,
            replaces=folded,
            finish=finish,
            usage=usage,
            seed=arguments.get("seed"),
            notices=state.notices,
            run_record=self._run_record(arguments, request),
        )

    def _arguments(self, messages: Sequence[Message], request: TurnRequest) -> dict[str, Any]:
        """The arguments of `chat_completion`, without the settings that the server does not support."""
        settings = request.settings
        used = self._spec.capabilities.settings.intersection(("thinking", "reasoning_effort", *request.strategy.uses))
        values = {name: getattr(settings, name) for name in sorted(used)}
        extra = {name: values[name] for name in EXTRA_REMOTE_SETTINGS if name in values}
        if "thinking" in extra:
            extra["chat_template_kwargs"] = {"enable_thinking": extra.pop("thinking")}
        if not settings.sets_effort:
            extra.pop("reasoning_effort", None)
        if extra.get("top_k") == 0:
            extra["top_k"] = -1  # servers with this setting read -1 as "all tokens"
        arguments = {
            "messages": [m.as_dict() for m in messages],
            "model": self._spec.name,
            "max_tokens": settings.max_new_tokens,
            "temperature": 0.0 if request.strategy.name == "greedy" else values.get("temperature"),
            "top_p": values.get("top_p"),
            "seed": fresh_seed() % 2**31 if values.get("seed", 0) is None else values.get("seed"),
            "stop": list(settings.stop_strings) or None,
            "extra_body": extra or None,
        }
        return {name: value for name, value in arguments.items() if value is not None}

    def _run_record(self, arguments: Mapping[str, Any], request: TurnRequest) -> RunRecord:
        settings = request.settings
        body = {name: value for name, value in arguments.items() if name != "extra_body"}
        body |= arguments.get("extra_body", {})
        names = ["model", "strategy", *request.strategy.uses, "thinking", "reasoning_effort"]
        values = {name: getattr(settings, name) for name in names if name in self._spec.capabilities.settings}
        values |= {"strategy": request.strategy.name} if "strategy" in values else {}
        return RunRecord(
            prompt="",
            config={"engine": "server"},
            program=self._program(arguments, settings),
            messages=request.messages,
            values=values | ({"seed": arguments["seed"]} if "seed" in arguments else {}),
            library="huggingface_hub",
            request=json.dumps(body, ensure_ascii=False, indent=1),
        )

    def _program(self, arguments: Mapping[str, Any], settings: Settings) -> str:
        """A Python program that sends the same request. It reads the address and the key from the environment."""
        where = ['base_url=os.environ["REMOTE_BASE_URL"]'] if self._server.url else []
        key = f'os.environ["{self._server.key_name}"]' if self._server.key else repr(NO_KEY)
        rest = named(**{name: value for name, value in arguments.items() if name != "messages"})
        lines = [
            "import os",
            "from huggingface_hub import InferenceClient",
            "",
            f"client = {call('InferenceClient', [*where, f'api_key={key}'])}",
            f"messages = {listed(arguments['messages'])}",
            f"output = {call('client.chat_completion', ['messages', *rest])}",
            f"answer = output.choices[0].message.content.rpartition({THINK.closing.strip()!r})[2]",
            *[f"answer = answer.partition({text!r})[0]" for text in settings.stop_strings],
            "print(answer.strip())",
        ]
        return "\n".join(lines)


def _messages_to_send(messages: Sequence[Message]) -> tuple[Sequence[Message], str]:
    """The conversation, ending in a question, and the partial answer to continue.

    Most servers begin a new message after an answer, so a question (`GO_ON`) asks for the continuation. A partial
    reasoning text is not sent; the model reasons again.
    """
    *before, last = messages
    if last.role != "assistant":
        return messages, ""
    text, _ = split_thought(last.content)
    return ([*before, Message("assistant", text), Message("user", GO_ON)] if text else before), text
