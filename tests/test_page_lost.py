"""A connection that breaks, as a laptop's does that sleeps or changes its network: the talk stays, and goes on."""

import contextlib
import re
import socket
import socketserver
import threading

import pytest
from playwright.sync_api import expect

from parley import turn
from tests.browser import Visitor
from tests.conftest import until

pytest_plugins = ["tests.browser"]

STORY = "Once upon a time there was a bird that could count. " * 6


class Line(socketserver.ThreadingTCPServer):
    """The line between a browser and the app, which can be cut and mended."""

    daemon_threads = True

    def __init__(self, url):
        self.goal, self.held, self.cut_off = int(url.rpartition(":")[2]), set(), False
        super().__init__(("127.0.0.1", 0), Call)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def cut(self):
        self.cut_off = True
        for end in list(self.held):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def mend(self):
        self.cut_off = False


class Call(socketserver.BaseRequestHandler):
    def handle(self):
        if self.server.cut_off:
            return
        with socket.create_connection(("127.0.0.1", self.server.goal)) as there:
            ends = {self.request, there}
            self.server.held |= ends
            back = threading.Thread(target=self.carry, args=(there, self.request), daemon=True)
            back.start()
            self.carry(self.request, there)
            back.join()
            self.server.held -= ends

    def carry(self, source, goal):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                goal.sendall(data)
        with contextlib.suppress(OSError):
            goal.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def far(chromium, inside):
    """A visitor at the other end of a line, and the line."""
    line = Line(inside.url)
    visitor = Visitor(chromium, line.url)
    visitor.choose("model", "Parrot")
    yield visitor, line
    visitor.close()
    line.shutdown()
    line.server_close()
    until(lambda: not turn._cancels)


def test_an_answer_whose_connection_breaks_stays_and_can_be_asked_for_again(far, inside):
    visitor, line = far
    visitor.ask("one")
    visitor.send(STORY)
    expect(visitor.answer).to_have_text(re.compile("Once"))
    line.cut()
    until(lambda: not turn._cancels)
    line.mend()
    expect(visitor.error).to_have_text(re.compile("Nothing is lost"))
    visitor.until_free()
    expect(visitor.questions).to_have_text(["one", STORY.strip()])
    expect(visitor.answer).to_have_text(re.compile("Once"))
    visitor.press("Retry")
    expect(visitor.answer).to_have_text(STORY.strip())
    visitor.until_free()
    expect(visitor.error).to_have_count(0)
    visitor.ask("two")
    expect(visitor.answer).to_have_text("two")


def test_a_message_that_is_sent_without_a_connection_stays_in_the_box(far):
    visitor, line = far
    visitor.ask("one")
    line.cut()
    with visitor.tab.expect_event("requestfailed", lambda request: "/run/predict" in request.url):
        visitor.send("two")
    with visitor.tab.expect_response(lambda answer: "/app_id" in answer.url):
        line.mend()
    expect(visitor.box).to_have_value("two")
    expect(visitor.questions).to_have_text(["one"])
    visitor.ask("two")
    expect(visitor.answer).to_have_text("two")
