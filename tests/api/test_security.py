"""The guard in front of the running app."""

import http.client
import json
import urllib.parse

import pytest

from parley.config import MAX_REQUEST_BYTES

pytest_plugins = ["tests.browser"]


def ask(url, method, path, body=None, **headers):
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=90)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json", **headers})
        response = connection.getresponse()
        return response.status, response.headers, response.read().decode()
    finally:
        connection.close()


def test_a_request_that_is_too_large_is_refused_with_the_limit(inside, monkeypatch):
    body = json.dumps({"message": "hello", "model": "parrot"})
    monkeypatch.setenv("MAX_REQUEST_BYTES", str(len(body)))
    assert ask(inside.url, "POST", "/gradio_api/call/v2/chat", body)[0] == 200
    status, _, said = ask(inside.url, "POST", "/gradio_api/call/v2/chat", body + " ")
    assert status == 413 and f"A request may have at most {len(body)} bytes." in said


def test_a_large_request_without_a_stated_length_is_refused_too(inside):
    pieces = (b"x" * 100_000 for _ in range(MAX_REQUEST_BYTES.default // 100_000 + 1))
    status, _, _ = ask(inside.url, "POST", "/gradio_api/call/v2/chat", pieces)
    assert status == 413


def test_a_long_conversation_is_not_too_large(inside):
    body = json.dumps({"message": "x" * 30_000, "model": "parrot", "system_prompt": ""})
    status, _, said = ask(inside.url, "POST", "/gradio_api/call/v2/chat", body)
    assert status == 200 and "event_id" in said


@pytest.mark.parametrize("path", ["/gradio_api/upload", "/gradio_api/file=/etc/passwd", "/gradio_api/file=app.py"])
def test_nothing_can_be_uploaded_and_no_file_read(inside, path):
    for method in ("GET", "POST"):
        status, headers, _ = ask(inside.url, method, path, b"{}" if method == "POST" else None)
        assert status == 404
        assert "connect-src 'self'" in headers["Content-Security-Policy"]


FILE = {"path": "x", "url": "http://127.0.0.1:%d/secret", "meta": {"_type": "gradio.FileData"}}


@pytest.mark.parametrize("escaped", [False, True])
@pytest.mark.parametrize(
    "nest", [lambda f: f, lambda f: [{"role": "user", "content": [f]}], lambda f: {"a": {"b": [f]}}]
)
def test_no_body_makes_the_server_download_anything(inside, elsewhere, nest, escaped):
    port = urllib.parse.urlsplit(elsewhere.url).port
    body = json.dumps({"message": "hi", "model": "parrot", "messages": nest(FILE | {"url": FILE["url"] % port})})
    body = (
        body.replace("gradio.FileData", "gradio.File\\u0044ata").replace("_type", "\\u005ftype") if escaped else body
    )
    for path in ("/gradio_api/call/v2/chat", "/gradio_api/call/chat", "/gradio_api/queue/join"):
        status, _, said = ask(inside.url, "POST", path, body)
        assert status == 422 and "takes no files" in said
    assert elsewhere.asked == []


def test_a_body_that_is_nested_very_deeply_is_refused_with_a_sentence(inside):
    body = '{"message": ' + "[" * 100_000 + "]" * 100_000 + "}"
    status, _, said = ask(inside.url, "POST", "/gradio_api/call/v2/chat", body)
    assert status == 422 and "nested too deeply" in said
