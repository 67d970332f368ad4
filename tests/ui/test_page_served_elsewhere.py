"""The page over plain HTTP at an address that is not this machine's own, and behind a proxy under a path."""

import ipaddress
import re
import shutil
import socket
import subprocess
import urllib.request

import psutil
import pytest
from gradio_client import Client
from playwright.sync_api import expect

from tests.browser import Visitor
from tests.conftest import Space, free_port, lacking, until

pytest_plugins = ["tests.browser"]
pytestmark = pytest.mark.slow

SAID = "Polly wants\n\n* a **cracker**"
# `option http-no-delay` and no buffering: words come as they are made.
PROXY = """
defaults
    mode http
    timeout connect 5s
    timeout client 10m
    timeout server 10m
    option http-no-delay
frontend page
    bind 127.0.0.1:{port}
    {strip}
    default_backend app
backend app
    server app 127.0.0.1:{goal}
"""
STRIP = r"http-request replace-path /parley(/)?(.*) /\2"


def other_address():
    """An address of this machine that is no secure origin for a browser."""
    for each in [one for card in psutil.net_if_addrs().values() for one in card if one.family == socket.AF_INET]:
        if not ipaddress.ip_address(each.address).is_loopback:
            return each.address
    return lacking("this machine has no address but its own")


def visit(chromium, url):
    visitor = Visitor(chromium, url)
    visitor.choose("model", "Parrot")
    return visitor


def copied(visitor):
    """What is in the clipboard, pasted as a person pastes it."""
    visitor.box.fill("")
    visitor.box.press("Control+v")
    said = visitor.box.input_value()
    visitor.box.fill("")
    return said


def use(visitor):
    """Send, stop, copy, and the list of conversations."""
    visitor.ask(SAID)
    expect(visitor.answer).to_have_text(re.compile("a cracker"))
    visitor.press("Copy message")
    assert copied(visitor).strip() == SAID
    visitor.limit(4096)
    visitor.send("Once upon a time. " * 400)  # which lasts until it is stopped
    expect(visitor.answer).to_have_text(re.compile("Once"))
    visitor.stop_button.click()
    visitor.until_free()
    expect(visitor.quiet).to_have_text(re.compile("stopped"))
    visitor.tab.reload()
    expect(visitor.questions).to_have_count(2)
    assert visitor.faults == []


@pytest.fixture(scope="module")
def at_large():
    """The app for a whole network."""
    space = Space(MODEL_IDS="budgie,parrot", GRADIO_SERVER_NAME="0.0.0.0")
    yield f"http://{other_address()}:{space.port}"
    space.close()


def test_over_plain_http_a_visitor_sends_stops_copies_and_finds_their_conversations(chromium, at_large):
    visitor = visit(chromium, at_large)
    assert not visitor.tab.evaluate("isSecureContext")
    use(visitor)
    visitor.tab.get_by_role("button", name="Conversations").click()
    visitor.tab.get_by_role("button", name="Copy link").click()
    expect(visitor.tab.locator("#conversation-list")).to_be_hidden()
    assert copied(visitor).startswith(f"{at_large}/?model=")
    visitor.close()


@pytest.fixture(scope="module", params=["strips", "passes"])
def behind(request, tmp_path_factory):
    """The address of the app behind a proxy, which takes the path away or passes it on."""
    if not shutil.which("haproxy"):
        lacking("no HAProxy on this machine: apt-get install haproxy")
    space, port = Space(MODEL_IDS="budgie,parrot", ROOT_PATH="/parley"), free_port()
    file = tmp_path_factory.mktemp("proxy") / "haproxy.cfg"
    strip = STRIP if request.param == "strips" else ""
    file.write_text(PROXY.format(port=port, goal=space.port, strip=strip))
    proxy = subprocess.Popen(["haproxy", "-db", "-f", str(file)])
    url = f"http://127.0.0.1:{port}/parley"

    def is_up():
        try:
            return urllib.request.urlopen(f"{url}/config", timeout=60).status == 200
        except OSError:
            return False

    until(is_up)
    yield url
    proxy.terminate()
    proxy.wait()
    space.close()


def test_behind_a_proxy_under_a_path_page_and_programs_work(chromium, behind):
    visitor = visit(chromium, f"{behind}/")
    visitor.page.locator("#setting-strategy").wait_for()
    use(visitor)
    visitor.close()
    client = Client(behind, verbose=False)
    assert client.predict("Polly", model="parrot", api_name="/chat") == "Polly"


def test_streams_ask_a_proxy_not_to_hold_words_back(inside):
    with urllib.request.urlopen(inside.url) as page:
        assert page.headers["X-Accel-Buffering"] is None
    from tests.api.test_unread_streams import post

    event = post(inside.url, "/gradio_api/call/v2/chat", {"message": "abc", "model": "parrot"})
    with urllib.request.urlopen(f"{inside.url}/gradio_api/call/chat/{event}", timeout=60) as stream:
        assert stream.headers["X-Accel-Buffering"] == "no" and "abc" in stream.read().decode()
