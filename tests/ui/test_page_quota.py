"""On ZeroGPU the page around knows the visitor: what may spend their seconds carries its headers."""

import re
import urllib.parse

import pytest
from playwright.sync_api import expect

from parley.serving import turn
from tests.browser import Visitor
from tests.conftest import until

pytest_plugins = ["tests.browser"]
pytestmark = pytest.mark.slow

# Gradio asks only a page around a Space, by the names of the Hub.
SPACE, AROUND = "https://owner-parley.hf.space", "https://huggingface.co/spaces/owner/parley"
PAGE = f"""<body style="margin:0"><iframe src="{SPACE}/" width="1100" height="700"></iframe><script>
  let count = 0;
  addEventListener("message", ({{ data, source, origin, ports }}) => {{
    if (data === "supports-zerogpu-headers") source.postMessage(data, origin);
    if (data === "zerogpu-headers") ports[0].postMessage({{ "x-zerogpu-token": `token ${{++count}}` }});
  }});
</script>"""


@pytest.fixture
def signed_in(chromium, inside):
    """A visitor of the Space within a page of the Hub, and the headers of what begins their turns."""
    tokens = []

    def carry(route):
        request = route.request
        if "/queue/join" in request.url:
            tokens.append(request.headers.get("x-zerogpu-token"))
        named = {"x-forwarded-host": urllib.parse.urlsplit(SPACE).netloc, "x-forwarded-proto": "https"}
        there = request.url.replace(SPACE, inside.url)
        route.fulfill(response=route.fetch(url=there, headers=request.headers | named))

    chromium.route(f"{SPACE}/**", carry)
    chromium.route(AROUND, lambda route: route.fulfill(body=PAGE, content_type="text/html"))
    visitor = Visitor(chromium, f"{SPACE}/", within=AROUND)
    yield visitor, tokens
    visitor.close()
    chromium.unroute_all()
    until(lambda: not turn.running())


def test_each_way_that_may_spend_seconds_carries_the_headers_of_the_page_around(signed_in):
    visitor, tokens = signed_in
    visitor.limit(8)
    for way in (
        lambda: visitor.send("Hello, who are you?"),
        lambda: visitor.press("Retry"),
        lambda: visitor.press("Continue"),
        lambda: visitor.page.locator("#resume-answer").evaluate("(button) => button.click()"),
    ):
        way()
        expect(visitor.stop_button).to_be_visible()
        visitor.until_free()
        expect(visitor.quiet).to_have_text(re.compile("tokens"))
    assert tokens == [f"token {number}" for number in range(1, 5)]
