"""Who counts as one visitor, and as one address."""

import functools

import httpx2
import pytest

from parley.api.visitors import network
from parley.serving.waiting_line import LINE
from tests.conftest import Space, until


@pytest.mark.parametrize(
    ("host", "counted"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("testclient", "testclient"),
    ],
)
def test_an_address_is_that_of_a_household(host, counted):
    assert network(host) == counted


def test_turns_are_counted_by_the_address_of_the_connection_whatever_a_header_says(inside, monkeypatch):
    monkeypatch.setenv("TURNS_PER_ADDRESS", "2")
    ask = {"message": "hello", "model": inside.endless, "max_new_tokens": 4000}
    headers = [{"X-Forwarded-For": f"192.0.2.{n}", "Forwarded": f"for=192.0.2.{n}"} for n in range(3)]
    with httpx2.Client(base_url=inside.url) as http:
        call = functools.partial(http.post, "/gradio_api/call/v2/chat", json=ask)
        events = [call(headers=each).json()["event_id"] for each in headers[:2]]
        until(lambda: LINE.num_running() == 2)
        events.append(call(headers=headers[2]).json()["event_id"])
        assert list(LINE._addresses) == ["127.0.0.1"]
        with http.stream("GET", f"/gradio_api/call/chat/{events[2]}") as stream:
            said = "".join(stream.iter_text())
        assert "2 answers of your network run or wait already." in said and "too_many" in said
        for each in events:
            http.post("/gradio_api/reset", json={"event_id": each})
    until(lambda: not LINE.num_running())


@pytest.mark.slow
def test_a_trusted_proxy_says_at_which_address_a_visitor_is():
    space = Space(MODEL_IDS="parrot", FORWARDED_ALLOW_IPS="127.0.0.1", TURNS_PER_ADDRESS="1")
    try:
        with httpx2.Client(base_url=space.url) as http:
            ask = {"message": "word " * 500, "model": "parrot"}

            def said(*addresses):
                """Of two programs who ask one after the other; the last address is that which the proxy saw."""
                given = [{"X-Forwarded-For": each} for each in addresses]
                call = functools.partial(http.post, "/gradio_api/call/v2/chat", json=ask)
                one = call(headers=given[0]).json()["event_id"]
                with http.stream("GET", f"/gradio_api/call/chat/{one}") as first:
                    pieces = first.iter_text()  # once it is dropped, the stream is closed
                    next(pieces)
                    two = call(headers=given[1]).json()["event_id"]
                    with http.stream("GET", f"/gradio_api/call/chat/{two}") as second:
                        line = next(each for each in second.iter_text() if "generating" in each or "error" in each)
                for each in (one, two):
                    http.post("/gradio_api/reset", json={"event_id": each})
                return line

            assert "generating" in said("192.0.2.1", "192.0.2.2")
            assert "1 answers of your network" in said("192.0.2.3", "192.0.2.3")
            assert "1 answers of your network" in said("192.0.2.4", "192.0.2.9, 192.0.2.4"), "who lies is known too"
    finally:
        space.close()
