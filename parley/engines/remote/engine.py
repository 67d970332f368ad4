"""The engine for a model on a server that speaks chat completions, one's own or an Inference Provider's."""

import json
import logging
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from parley.config import EXTRA_REMOTE_SETTINGS
from parley.engines.base import Engine, TurnRequest
from parley.engines.remote import errors
from parley.engines.remote.stream import NO_KEY, StreamState, drain, open_stream
from parley.errors import BadSetting
from parley.events import FLUSH, Delta, RunRecord
from parley.generation.reasoning_parser import THINK_CLOSE, ReasoningParser
from parley.messages import Message
from parley.models.remote_servers import Server
from parley.models.spec import ModelSpec
from parley.settings import Settings
from parley.snippet import call, listed, named

GO_ON = "Go on with your last answer exactly where it stopped. Repeat nothing of it, and say nothing else first."
SILENCE = 120.0  # seconds; a server that loads its model first takes long
GRACE = 1.0  # seconds that a finished answer waits for its usage
_log = logging.getLogger(__name__)


class RemoteEngine(Engine):
    """Answers by asking a server; any number of turns at a time, and waits for nothing on this machine."""

    def __init__(self, spec: ModelSpec, server: Server, turn_seconds: float = 300.0, silence: float = SILENCE) -> None:
        self._spec = spec
        self._server = server
        self._seconds = turn_seconds
        self._silence = silence

    def stream(self, request: TurnRequest) -> Iterator[Delta]:
        """See `Engine.stream`; ending it closes the connection. Raises `ServerFault` after all that came before."""
        messages, settings, cancel = request.messages, request.settings, request.cancel
        if refusal := self._spec.capabilities.refusal(self._spec.label, settings):
            raise BadSetting(refusal)
        told, before = _asked(messages)
        arguments = self._arguments(told, request)
        heard = StreamState(settings, before)
        deadline = time.monotonic() + self._seconds
        with open_stream(self._server, arguments) as inbox:
            while not heard.over and not cancel.is_set() and time.monotonic() < deadline:
                items = drain(inbox)
                yield heard.take(items)
                if heard.silence > (GRACE if heard.finish else self._silence):
                    heard.end(errors.ServerError(errors.SILENT.replace("{seconds}", f"{self._silence:g}")))
                if items and not heard.over:
                    cancel.wait(FLUSH)
        text, thought = heard.text.feed("", last=True)
        if heard.fault:
            yield Delta(text=text, thought=thought)
            _log.warning("%s: %s", self._spec.name, type(heard.fault).__name__)
            known = {"name": self._spec.label, "key": self._server.key, "key_name": self._server.key_name}
            raise errors.to_sentence(heard.fault, bool(heard.pieces), **known) from None
        usage, finish = heard.usage(), heard.finish or ("stopped" if cancel.is_set() else "time")
        if finish == "length" and usage.unit == "token" and usage.new_tokens < settings.max_new_tokens:
            finish = "context"
        yield Delta(
            text=text,
            thought=thought,
            finish=finish,
            usage=usage,
            seed=arguments.get("seed"),
            notices=heard.notices,
            run_record=self._run_record(arguments, request),
        )

    def _arguments(self, messages: Sequence[Message], request: TurnRequest) -> dict[str, Any]:
        """Those of `chat_completion`; what the server does not honour is left out, and neutral."""
        settings = request.settings
        used = self._spec.capabilities.settings.intersection(("thinking", *request.strategy.uses))
        values = {name: getattr(settings, name) for name in sorted(used)}
        extra = {name: values[name] for name in EXTRA_REMOTE_SETTINGS if name in values}
        if "thinking" in extra:
            extra["chat_template_kwargs"] = {"enable_thinking": extra.pop("thinking")}
        if extra.get("top_k") == 0:
            extra["top_k"] = -1  # every server that knows it takes this for all
        arguments = {
            "messages": [m._asdict() for m in messages],
            "model": self._spec.name,
            "max_tokens": settings.max_new_tokens,
            "temperature": 0.0 if settings.strategy == "greedy" else values.get("temperature"),
            "top_p": values.get("top_p"),
            "seed": random.SystemRandom().randrange(2**31) if values.get("seed", 0) is None else values.get("seed"),
            "stop": list(settings.stop_strings) or None,
            "extra_body": extra or None,
        }
        return {name: value for name, value in arguments.items() if value is not None}

    def _run_record(self, arguments: Mapping[str, Any], request: TurnRequest) -> RunRecord:
        settings = request.settings
        body = {name: value for name, value in arguments.items() if name != "extra_body"}
        body |= arguments.get("extra_body", {})
        names = ["model", "strategy", *request.strategy.uses, "thinking"]
        values = {name: getattr(settings, name) for name in names if name in self._spec.capabilities.settings}
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
        """Python that asks for the same once more. Address and key are those of whoever runs it."""
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
            f"answer = output.choices[0].message.content.rpartition({THINK_CLOSE!r})[2]",
            *[f"answer = answer.partition({text!r})[0]" for text in settings.stop_strings],
            "print(answer.strip())",
        ]
        return "\n".join(lines)


def _asked(messages: Sequence[Message]) -> tuple[Sequence[Message], str]:
    """The conversation with a question at its end, and the answer that is to be continued.

    Most servers begin a new message after an answer, so they are asked in words; a thought they have to think again.
    """
    *before, last = messages
    if last.role != "assistant":
        return messages, ""
    text, _ = ReasoningParser().feed(last.content, last=True)
    return ([*before, Message("assistant", text), Message("user", GO_ON)] if text else before), text
