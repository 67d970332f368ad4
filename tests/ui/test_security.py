"""The guard in front of the running app."""

import http.client
import json
import urllib.parse

import pytest

from parley.ui.security import MAX_REQUEST_BYTES


def ask(url, method, path, body=None, **headers):
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=90)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json", **headers})
        response = connection.getresponse()
        return response.status, response.headers, response.read().decode()
    finally:
        connection.close()


def test_a_request_that_is_too_large_is_refused_with_the_limit(inside):
    body = json.dumps({"message": "x" * MAX_REQUEST_BYTES})
    status, _, said = ask(inside.url, "POST", "/gradio_api/call/v2/chat", body)
    assert status == 413 and str(MAX_REQUEST_BYTES) in said


def test_a_large_request_without_a_stated_length_is_refused_too(inside):
    pieces = (b"x" * 100_000 for _ in range(MAX_REQUEST_BYTES // 100_000 + 1))
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
