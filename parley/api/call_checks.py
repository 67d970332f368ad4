"""Checks the call of a program before Gradio gets it: what is wrong with it is told in one sentence, with a 4xx."""

import json
import re
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from parley.api.security import is_openai, read_body, refusal, replay_body
from parley.api.turns.program_turn import WITH_SETTINGS
from parley.errors import ChatError, error_data, instead_of
from parley.models import registry
from parley.settings import OPTIONS, Settings

_CALL = re.compile(r"/gradio_api/(call/v2|call|run|api)/([^/]+)/?")
_JOIN = "/gradio_api/queue/join"
_TYPE = b"content-type"
_TYPES: dict[str, tuple[type, ...]] = {
    **{"string": (str,), "number": (int, float), "integer": (int,), "boolean": (bool,)},
    **{"array": (list,), "object": (dict,), "null": (type(None),)},
}
_NAMES = {"string": "text", "array": "a list", "object": "an object", "integer": "a whole number"}
_NAMES |= {"number": "a number", "boolean": "true or false", "null": "null"}


class Refused(Exception):
    """A call that is refused with this status, with this sentence, and with the error as data."""

    def __init__(self, sentence: str, status: int = 422, error: Mapping[str, Any] | None = None) -> None:
        super().__init__(sentence)
        code = "not_found" if status == 404 else "bad_request"
        self.sentence, self.status, self.error = sentence, status, error or error_data(code, sentence)

    @classmethod
    def of(cls, error: ChatError) -> "Refused":
        """The refusal for what is wrong with a value. As elsewhere in Gradio's API its status is 422, not 400."""
        return cls(str(error), 422 if error.status == 400 else error.status, error.as_data())


class CallChecks:
    """Refuses calls with 404 or 422 and a sentence. Pure ASGI, so that it changes no stream."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._endpoints: dict[str, Any] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request or connection."""
        if scope["type"] != "http" or is_openai(scope["path"]):  # which checks its requests itself
            await self._app(scope, receive, send)
            return
        if scope["method"] == "POST":
            body = _without_lone_surrogates(await read_body(scope, receive) or b"")
            blocks = scope["app"].get_blocks()
            self._endpoints = self._endpoints or blocks.get_api_info()["named_endpoints"]
            try:
                body = self._checked(blocks, scope["path"], body)
            except Refused as error:
                await refusal(error.status, error.sentence, error.error)(scope, receive, send)
                return
            headers = [(name, value) for name, value in scope["headers"] if name not in (b"content-length", _TYPE)]
            headers += [(b"content-length", b"%d" % len(body)), (_TYPE, b"application/json")]
            scope, receive = {**scope, "headers": headers}, replay_body(body, receive)
        await self._app(scope, receive, _with_sentences(send))

    def _checked(self, blocks: Any, path: str, body: bytes) -> bytes:
        """The body of this request, as Gradio shall get it. Raises `Refused`."""
        given = _object(body)
        call = _CALL.fullmatch(path)
        if path == _JOIN or (call and "fn_index" in given):  # the page names functions by their numbers
            _check_numbered(blocks, given)
        elif call:
            return self._checked_call(blocks, call[1], call[2], given)
        return body

    def _checked_call(self, blocks: Any, way: str, name: str, given: dict[str, Any]) -> bytes:
        """The body of a call to the endpoint `name`, with a value for each parameter. Raises `Refused`."""
        if f"/{name}" not in self._endpoints:
            raise Refused(_unknown("endpoint", f"/{name}", self._endpoints), 404)
        parameters = self._endpoints[f"/{name}"]["parameters"]
        if way == "call/v2":
            values = {key: value for key, value in given.items() if key != "oauth_token"}
            names = [each["parameter_name"] for each in parameters]
            if unknown := [key for key in values if key not in names]:
                raise Refused(_unknown("parameter", unknown[0], names))
            _check_values(name, parameters, values)
            return json.dumps(given).encode()
        data = given.get("data")
        if not isinstance(data, list):
            raise Refused('The values of the parameters are missing. Send {"data": […]}, one value for each of them.')
        inputs = next(fn.inputs for fn in blocks.fns.values() if fn.api_name == name)
        if len(data) not in (*range(len(parameters) + 1), len(inputs)):  # the latter with values that have no name
            raise Refused(f"/{name} has {len(parameters)} parameters, and {len(data)} values were sent.")
        if len(data) <= len(parameters):
            _check_values(name, parameters, dict(zip((p["parameter_name"] for p in parameters), data, strict=False)))
            data = [*data, *(each.get("parameter_default") for each in parameters[len(data) :])]
        if len(data) == len(inputs):
            _check_components(f"/{name}", inputs, data)
        return json.dumps({**given, "data": data}).encode()


def _check_values(endpoint: str, parameters: Sequence[Mapping[str, Any]], values: Mapping[str, Any]) -> None:
    for each in parameters:
        name, optional = each["parameter_name"], each.get("parameter_has_default")
        if name not in values and not optional:
            raise Refused(f"The parameter {name!r} of /{endpoint} is missing.")
        if name in values and not (values[name] is None and optional):
            _check_value(endpoint, name, each["type"], values[name])
    if endpoint in WITH_SETTINGS:
        _check_turn(endpoint, values)


def _check_turn(endpoint: str, values: Mapping[str, Any]) -> None:
    if not values.get("message") and not values.get("messages"):
        raise Refused(f"There is no message to answer. Send text as {WITH_SETTINGS[endpoint]!r}.")
    try:
        settings = Settings.check({name: value for name, value in values.items() if name in OPTIONS})
        if values.get("model") is not None:
            registry.find(settings.model)
    except ChatError as error:
        raise Refused.of(error) from None


def _check_value(endpoint: str, name: str, schema: Mapping[str, Any], value: Any) -> None:
    if endpoint in WITH_SETTINGS and name in OPTIONS:
        return  # `Settings` says more
    allowed = _types(schema)
    if allowed and not any(_is(value, each) for each in allowed):
        wanted = " or ".join(_NAMES.get(each, each) for each in allowed)
        raise Refused(f"The parameter {name!r} of /{endpoint} must be {wanted}.")


def _types(schema: Mapping[str, Any]) -> list[str]:
    """The JSON types that this schema allows; none where it allows all."""
    if "oneOf" in schema:
        return [each for option in schema["oneOf"] for each in _types(option)]
    return [schema["type"]] if isinstance(schema.get("type"), str) else []


def _is(value: Any, type_name: str) -> bool:
    if isinstance(value, bool) and type_name != "boolean":
        return False
    return isinstance(value, _TYPES.get(type_name, object))


def _check_numbered(blocks: Any, given: Mapping[str, Any]) -> None:
    """Checks the call of a function by its number, as the page and gradio_client make it. Raises `Refused`."""
    index, data = given.get("fn_index"), given.get("data")
    fn = blocks.fns.get(index) if isinstance(index, int) and not isinstance(index, bool) else None
    if fn is None or fn.fn is None:
        raise Refused("There is no function with this fn_index. See /config for those that there are.")
    if not isinstance(data, list) or len(data) != len(fn.inputs):
        raise Refused(f"The function {index} takes {len(fn.inputs)} values, as a list named 'data'.")
    if not isinstance(given.get("session_hash"), str) or not given["session_hash"]:
        raise Refused("The session_hash is missing. It is a text of your own choice, the same for the stream.")
    _check_components(f"the function {index}", fn.inputs, data)


def _check_components(what: str, inputs: Sequence[Any], data: Sequence[Any]) -> None:
    """Refuses what Gradio would raise pydantic's error for, with a traceback in the log."""
    for number, (component, value) in enumerate(zip(inputs, data, strict=True)):
        model = getattr(component, "data_model", None)
        if model is None or value is None:
            continue
        try:
            model.model_validate(value, context={"validate_meta": True})
        except ValidationError:
            kind = component.get_block_name()
            raise Refused(f"The value {number} of {what} is none that a component '{kind}' can have.") from None


def _without_lone_surrogates(body: bytes) -> bytes:
    """The same JSON with a question mark for each half of a character, which UTF-8 cannot write."""
    if b"\\ud" not in body.lower():
        return body
    try:
        return json.dumps(json.loads(body), ensure_ascii=False).encode("utf-8", "replace")
    except (ValueError, RecursionError):
        return body  # it is refused later


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise Refused("The body is no valid JSON in UTF-8. Send an object.") from None
    if not isinstance(value, dict):
        raise Refused("The body must be a JSON object with the parameters by their names.")
    return value


def _unknown(kind: str, name: str, names: Collection[str]) -> str:
    all_names = f" There are: {', '.join(names)}." if names else " It takes none."
    other = instead_of(name, names) or all_names
    return f"There is no {kind} {name[:80]!r}.{other}"


def _with_sentences(send: Send) -> Callable[[Message], Awaitable[None]]:
    """A `send` that makes one sentence of FastAPI's list of errors, and 422 of a 500 that has a sentence."""
    held: list[Message] = []

    async def send_checked(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] in (422, 500):
            held.append(message)
            return
        if held:
            start, body = held.pop(), message.get("body", b"")
            if sentence := _sentence(body):
                await refusal(422, sentence)({"type": "http"}, _nothing, send)
                return
            await send(start)
        await send(message)

    return send_checked


async def _nothing() -> Message:
    return {"type": "http.disconnect"}


def _sentence(body: bytes) -> str:
    """The sentence of an answer of Gradio or FastAPI to a bad call; empty where it has none."""
    try:
        value = json.loads(body)
    except ValueError:
        return ""
    value = value if isinstance(value, dict) else {}
    said = value.get("error") or value.get("detail")
    if isinstance(said, list) and said and isinstance(said[0], dict):
        return f"{'.'.join(map(str, said[0].get('loc', ())))}: {said[0].get('msg', 'this is not valid')}."
    return said if isinstance(said, str) else ""
