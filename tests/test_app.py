"""`python app.py`, as a user starts it."""

import json
import re
import urllib.request

import gradio as gr
from gradio_client import Client

from parley.ui.chat_interface import ResilientChatInterface
from tests.conftest import ROOT

APP = (ROOT / "app.py").read_text()


def test_it_is_served_and_answers_with_no_network_and_no_setting(space):
    assert Client(space.url, verbose=False).predict("Hello!", api_name="/chat").strip()


def test_it_answers_first_as_budgie(space):
    models = Client(space.url, verbose=False).predict(api_name="/models")
    assert [m["name"] for m in models] == ["budgie", "parrot"]


def test_the_page_may_be_framed_and_calls_no_other_origin(space):
    with urllib.request.urlopen(space.url) as page:
        policy = page.headers["Content-Security-Policy"]
        text = page.read().decode()
    assert "connect-src 'self'" in policy and "unsafe-eval" not in policy and "frame-ancestors" not in policy
    assert page.headers["X-Frame-Options"] is None
    config, _ = json.JSONDecoder().raw_decode(text.partition("window.gradio_config = ")[2])
    assert config["title"] == "Parley"


def test_app_shows_the_space_on_one_screen():
    assert len(APP.splitlines()) <= 100
    for shown in (
        *(
            "import spaces",
            "@spaces.GPU(duration=gpu_budget.duration",
            ".launch(",
            "preload.load_models(",
            "additional_inputs=[model, ",
        ),
        *("model, strategy, temperature, top_p", "ResilientChatInterface(", "chat template", "TextIteratorStreamer"),
    ):
        assert shown in APP
    assert issubclass(ResilientChatInterface, gr.ChatInterface)
    assert all((ROOT / path).is_file() for path in re.findall(r"parley/[\w/]+\.py", APP))
