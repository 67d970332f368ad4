"""Generated calls to every route that is served: `python -m tests.fuzz --calls 10000`.

What comes back is never a 5xx and never a traceback. A call that is refused gets one sentence. Turns that begin are
answered by the parrot, and their streams are read to the end.
"""

import argparse
import json
import re
from collections import Counter
from urllib.parse import quote, urlencode

import httpx2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parley.api.routes import CLOSED, SERVED
from parley.settings import OPTIONS
from tests.conftest import Space

ENDLESS = "/heartbeat/"  # a stream that ends when its reader goes, of which Gradio then logs a traceback
PARAMETERS = {
    "chat": ["message", "messages", *OPTIONS],
    "generate": ["messages", "prompt", "n", *OPTIONS],
    "compare": ["messages", "prompt", "columns", *OPTIONS],
    "next": ["messages", "text", "count", *OPTIONS],
    "tokens": ["messages", "answer", "ids", "prompt_ids", "settings"],
    "detect": ["text", "model", "strategy", "watermark_key"],
    "strategies": ["model"],
    "models": [],
}
TEXT = st.text(st.characters(codec=None), max_size=30)  # lone surrogates too
NUMBERS = st.one_of(st.integers(), st.floats(), st.just(10**400), st.sampled_from([-1, 0, 1, 7, 1.5]))
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXT, st.sampled_from(["parrot", "budgie", "greedy", "beams", ""])),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXT, inner, max_size=4)),
    max_leaves=12,
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.one_of(st.sampled_from(["user", "assistant", "system"]), JSON), "content": JSON}
    ),
    max_size=3,
)
NAMES = st.one_of(
    *[st.sampled_from([*PARAMETERS])] * 5, st.sampled_from(["chta", "model", "_answer", "lambda", "x"]), TEXT
)
RIGHT = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.floats(0.1, 2),
        "top_k": st.integers(0, 1000),
        "seed": st.integers(0, 2**31),
        "strategy": st.sampled_from(["greedy", "sampling", "beams", "dola"]),
        "stop": st.one_of(TEXT, st.lists(TEXT, max_size=3)),
        "system_prompt": TEXT,
    },
)


@st.composite
def parameters(draw, name):
    """Some parameters of an endpoint, a few of them right, a few misspelt."""
    known = PARAMETERS.get(name, ["message"])
    keys = st.one_of(st.sampled_from(known), TEXT) if known and draw(st.booleans()) else TEXT
    keys = st.sampled_from(known) if known and draw(st.integers(0, 3)) else keys
    values = draw(st.dictionaries(keys, JSON, max_size=4))
    if name == "chat" and draw(st.booleans()):
        values = draw(st.one_of(st.just(values), RIGHT))
        values |= {"message": draw(st.one_of(st.just("hi"), TEXT)), "model": "parrot"}
    if draw(st.booleans()) and "messages" in known:
        values |= {"messages": draw(MESSAGES)}
    return values


@st.composite
def openai_bodies(draw, path):
    """The body of a request of the OpenAI API: mostly right, with a few parameters that are wrong or misspelt."""
    text = st.one_of(st.just("hi"), TEXT)
    right = {"model": st.just("parrot")}
    right |= {"messages": MESSAGES} if "chat" in path else {"prompt": st.one_of(text, st.lists(text, max_size=2))}
    known = {"stream": st.booleans(), "max_tokens": st.integers(1, 20), "n": st.integers(0, 3), "logprobs": JSON}
    known |= {"stop": JSON, "temperature": JSON, "seed": JSON, "stream_options": JSON, "response_format": JSON}
    known |= {"tools": JSON, "tool_choice": JSON, "logit_bias": JSON, "user": JSON, "echo": JSON, "suffix": JSON}
    value = draw(st.fixed_dictionaries(right, optional=known))
    return value | draw(st.dictionaries(st.one_of(TEXT, st.sampled_from(["model", *right, *known])), JSON, max_size=1))


def encoded(value):
    """JSON as bytes; what JSON does not know, such as NaN, as Python writes it."""
    return json.dumps(value).encode("utf-8", "surrogatepass")


@st.composite
def bodies(draw, path, name):
    """The body of a POST: mostly JSON, sometimes cut, damaged, deep or of another kind."""
    if path.startswith("/v1/") or path == "/tokenize":
        value = draw(st.one_of(openai_bodies(path), JSON))
    elif "/call/v2/" in path:
        value = draw(st.one_of(parameters(name), JSON))
    elif "/queue/join" in path or "/cancel" in path or "/reset" in path:
        index, session = draw(st.one_of(st.integers(-2, 80), JSON)), draw(st.one_of(st.just("fuzz"), JSON))
        count = draw(st.sampled_from([*range(6), *range(len(OPTIONS), len(OPTIONS) + 4)]))
        data = draw(st.one_of(st.lists(JSON, min_size=count, max_size=count), JSON))
        value = {"fn_index": index, "session_hash": session, "data": data}
        value |= draw(st.dictionaries(st.sampled_from(["event_id", "event_data", "trigger_id"]), JSON, max_size=2))
    else:
        value = draw(st.one_of(st.fixed_dictionaries({"data": st.one_of(st.lists(JSON, max_size=5), JSON)}), JSON))
    body = encoded(value)
    kind = draw(st.integers(0, 11))
    if kind == 0:
        return body[: draw(st.integers(0, len(body)))]
    if kind == 1:
        return draw(st.binary(max_size=60))
    if kind == 2:
        return b'{"data":' + b"[" * 5000 + b"]" * 5000 + b"}"
    if kind == 3:
        return body.replace(b'"', b"\xff", 1)
    return body


@st.composite
def calls(draw):
    """Method, path with query, body and headers of one request."""
    posts = [route for route in SERVED if route.startswith("POST")]
    route = draw(st.one_of(st.sampled_from(posts), st.sampled_from(posts), st.sampled_from([*SERVED, *CLOSED])))
    method, path = route.split(" ")
    name = draw(NAMES)
    for place in re.findall(r"\{\w+(?::path)?\}", path):
        path = path.replace(place, name if place == "{api_name}" else draw(st.one_of(TEXT, st.just("x" * 300))), 1)
    if draw(st.integers(0, 15)) == 0:
        method = draw(st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"]))
    query = draw(
        st.dictionaries(st.sampled_from(["session_hash", "page", "mark", "x", "all_endpoints"]), TEXT, max_size=2)
    )
    kind = draw(
        st.sampled_from(
            ["application/json"] * 4 + ["text/plain", "multipart/form-data", "application/x-www-form-urlencoded"]
        )
    )
    body = draw(bodies(path, name)) if method in ("POST", "PUT", "PATCH") else None
    return method, path, query, body, {"Content-Type": kind}


def sentence(text):
    """What an answer says to who is refused: as FastAPI, the OpenAI API and JSON-RPC write it, or as plain text."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    value = value if isinstance(value, dict) else {}
    error = value.get("error")
    return value.get("detail") or (error.get("message") if isinstance(error, dict) else error)


class Fuzz:
    """Sends calls to an app and looks at what comes back. `seen` counts the statuses."""

    def __init__(self, url):
        self.http = httpx2.Client(base_url=url, timeout=120)
        self.seen = Counter()

    def check(self, call):
        """Sends one call. Raises `AssertionError` where it is answered badly."""
        method, path, query, body, headers = call
        if ENDLESS in path:
            return
        path = quote(path, safe="/=", errors="surrogatepass")
        url = f"{path}?{urlencode(query, errors='surrogatepass')}" if query else path
        with self.http.stream(method, url, content=body, headers=headers) as answer:
            self.seen[answer.status_code] += 1
            if not self.seen.total() % 1000:
                print(f"{self.seen.total()} calls: {dict(sorted(self.seen.items()))}", flush=True)
            ill = answer.status_code == 503 and path.startswith("/healthz")  # which a busy machine may be
            assert answer.status_code < 500 or ill, call
            text = answer.read().decode("utf-8", "replace")
        if answer.status_code >= 400 and method != "HEAD":
            said = sentence(text)
            assert isinstance(said, str) and said.strip() and "Traceback" not in said, (call, text)
        if method == "POST" and answer.status_code == 200 and "/call/" in path:
            self.read(path, json.loads(text)["event_id"], call)

    def read(self, path, event, call):
        """Reads the stream of a call to its end: it has an answer, or an error with a sentence."""
        with self.http.stream("GET", f"{path.rstrip('/')}/{event}") as answer:
            lines = [line for line in answer.iter_lines() if line]
        assert lines[-2].startswith("event: ") and lines[-1].startswith("data: "), (call, lines)
        if lines[-2] == "event: error":
            assert json.loads(lines[-1].removeprefix("data: ")).get("error"), (call, lines)


def run(space, count):
    """Sends so many calls to a `Space`, and returns how often each status came."""
    fuzz = Fuzz(space.url)

    @settings(
        max_examples=count, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    @given(calls())
    def checked(call):
        fuzz.check(call)

    checked()
    assert space.process.poll() is None
    assert not (fault := space.output().partition("Traceback")[2]), fault[:3000]
    return fuzz.seen


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=10_000)
    space = Space(MODEL_IDS="parrot,budgie")
    try:
        print(dict(sorted(run(space, parser.parse_args().calls).items())))
    finally:
        space.close()


if __name__ == "__main__":
    main()
