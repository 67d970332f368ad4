"""A server of chat completions whose models are faults: what is asked for says what goes wrong."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = "sk-not-to-be-seen-4711"
WORDS = ["Once ", "upon ", "a ", "time"]
USAGE = {"prompt_tokens": 21, "completion_tokens": 4, "total_tokens": 25}
FAULTS = {}


def fault(name, **known):
    """Registers what answers as the model `name`."""

    def register(answer):
        FAULTS[name] = lambda handler: answer(handler, **known)
        return answer

    return register


def chunk(choices=(), **rest):
    return {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices, **rest}


def said(finish=None, **delta):
    return chunk([{"index": 0, "delta": delta, "finish_reason": finish}])


class Handler(BaseHTTPRequestHandler):
    """Reads a request, remembers it, and answers as its model does."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.body = json.loads(body)
        self.server.asked.append((self.path, {k.lower(): v for k, v in self.headers.items()}, self.body))
        self.close_connection = True
        try:
            FAULTS[self.body["model"]](self)
        except ConnectionError:  # the reader has left
            self.server.left.append(self.body["model"])

    def do_CONNECT(self):
        """Asked to be the way to somewhere else: remembers where to, and does not go there."""
        self.server.asked.append((self.path, {k.lower(): v for k, v in self.headers.items()}, None))
        self.whole(403, b"")

    def whole(self, status, body, kind="application/json", **headers):
        """A whole response."""
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)

    def begin(self):
        """The head of a stream that ends with the connection."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()

    def send(self, *events):
        for event in events:
            line = event if isinstance(event, str) else json.dumps(event)
            self.wfile.write(f"data: {line}\n\n".encode())
            self.wfile.flush()

    def tell(self, finish="stop", usage=USAGE, words=WORDS):
        """A sound answer."""
        if not self.body["stream"]:
            self.whole(200, json.dumps({"choices": [{"message": {"content": "".join(words)}}]}).encode())
            return
        self.begin()
        self.send(said(role="assistant"), *(said(content=word) for word in words), said(finish))
        self.send(*([chunk(usage=usage)] if usage else []), "[DONE]")

    def wait_until_the_reader_leaves(self):
        """Waits without a word."""
        self.connection.settimeout(60)
        if not self.connection.recv(1):
            raise ConnectionError


class FaultyServer:
    """Serves on loopback until closed."""

    def __init__(self):
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.asked = self.server.asked = []
        self.left = self.server.left = []
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


FAULTS["sound"] = Handler.tell
FAULTS["no usage"] = lambda handler: handler.tell(usage=None)
FAULTS["too long"] = lambda handler: handler.tell("length")
FAULTS["filtered"] = lambda handler: handler.tell("content_filter")
THOUGHT = ["<thi", "nk>Hm", "m</th", "ink>\n\nYes", "."]
FAULTS["tagged thought"] = lambda handler: handler.tell(words=THOUGHT)
FAULTS["absurd usage"] = lambda handler: handler.tell(usage=USAGE | {"completion_tokens": 10**400})
FAULTS["half a character"] = lambda handler: handler.tell(words=["Once ", "\ud83d", "\ude00", "."])
FAULTS["cached"] = lambda handler: handler.tell(usage=USAGE | {"prompt_tokens_details": {"cached_tokens": 16}})


LOGPROBS = [("Once ", -0.1, {"Once ": -0.1, "A ": -2.5}), ("upon ", -0.5, {"upon ": -0.5}), ("a ", -3, {"the ": -0.2})]


@fault("logprobs", words=LOGPROBS)
@fault("malformed logprobs", words=[("Once ", "much", {})])
def tell_probabilities(handler, words):
    handler.begin()
    for word, logprob, others in words:
        event = said(content=word)
        if handler.body.get("logprobs"):
            listed = [{"token": each, "logprob": value} for each, value in others.items()]
            content = [{"token": word, "logprob": logprob, "top_logprobs": listed[: handler.body["top_logprobs"]]}]
            event["choices"][0]["logprobs"] = {"content": content}
        handler.send(event)
    handler.send(said("stop"), chunk(usage=USAGE))


@fault("reasoning_content", field="reasoning_content")
@fault("reasoning", field="reasoning")
def think(handler, field):
    handler.begin()
    handler.send(said(**{field: "Hm"}), said(**{field: "m", "content": None}), said(content="Yes."), said("stop"))
    handler.send(chunk(usage=USAGE))


@fault("stopped there")
def stop_reason(handler):
    handler.begin()
    last = said("stop")
    last["choices"][0]["stop_reason"] = "###"
    handler.send(said(content="Once"), last, chunk(usage=USAGE))


for code in (401, 402, 403, 404, 408, 418, 500, 502, 503, 504):
    words = json.dumps({"error": {"message": f"Incorrect key {KEY}"}}).encode()
    FAULTS[str(code)] = lambda handler, code=code, words=words: handler.whole(code, words)
FAULTS["401 in plain words"] = lambda handler: handler.whole(401, f'"{KEY}"'.encode())
FAULTS["429"] = lambda handler: handler.whole(429, b"")
FAULTS["429 for seconds"] = lambda handler: handler.whole(429, b"{}", Retry_After=7)
FAULTS["429 for an hour"] = lambda handler: handler.whole(429, b"{}", Retry_After=3600)
FAULTS["429 until then"] = lambda handler: handler.whole(
    429, b"[]", Retry_After=time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 95))
)
FAULTS["429 for ever"] = lambda handler: handler.whole(429, b"{}", Retry_After="soon")
FAULTS["400"] = lambda handler: handler.whole(
    400, json.dumps({"error": {"message": f"The context of {KEY} has 512 tokens."}}).encode()
)
FAULTS["422"] = lambda handler: handler.whole(422, b'{"detail": "Unexpected fields in the request: {\'seed\'}"}')
FAULTS["html"] = lambda handler: handler.whole(200, b"<html><body>Log in, please.</body></html>", "text/html")
FAULTS["no stream"] = lambda handler: handler.whole(200, json.dumps(said("stop", content="Hello")).encode())
FAULTS["nothing"] = lambda handler: handler.whole(200, b"", "text/event-stream")
FAULTS["elsewhere"] = lambda handler: handler.whole(307, b"", Location="http://localhost:9/v1/chat/completions")
FAULTS["hangs up"] = lambda handler: None


@fault("garbled", line="{not json")
@fault("a list", line="[1]")
@fault("a number", line=said(content=5))
@fault("no delta", line=chunk([{"index": 0, "delta": None}]))
@fault("choices of text", line=chunk("abc"))
@fault("an error", line={"error": f"CUDA error in {KEY}"})
@fault("an overload", line={"error": "busy", "error_type": "overloaded"})
@fault("an end without a reason", line="[DONE]")
def break_off_with(handler, line):
    handler.begin()
    handler.send(said(content="Once "), said(content="upon"), line)


@fault("cut")
def cut(handler):
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    line = f"data: {json.dumps(said(content='Once '))}\n\n".encode()
    handler.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))  # and no last chunk


@fault("silent")
def stay_silent(handler):
    handler.wait_until_the_reader_leaves()


@fault("stalled")
def stall(handler):
    handler.begin()
    handler.send(said(content="Once "), said(content="upon"))
    handler.wait_until_the_reader_leaves()


@fault("stays open")
def never_close(handler):
    handler.begin()
    handler.send(said(content="Yes."), said("stop"))
    handler.wait_until_the_reader_leaves()


@fault("flood")
def flood(handler):
    handler.begin()
    while True:
        handler.send(said(content="water " * 50))


@fault("one endless line")
def endless_line(handler):
    handler.begin()
    handler.send(said(content="Once "))
    handler.wfile.write(b"data: ")
    while True:
        handler.wfile.write(b"x" * 1_000_000)


@fault("endless")
def endless(handler):
    handler.begin()
    while True:
        handler.send(said(content="tick "))
        time.sleep(0.02)  # the speed of a slow model
