"""`python app.py` and the plan of the house."""

import ast
import json
import urllib.request

import pytest
from gradio_client import Client

from tests.conftest import ROOT

APP = (ROOT / "app.py").read_text()
# Imports only go down. Each floor may import those after it.
FLOORS = [
    "ui",
    "turn",
    "gpu_time",
    "placing",
    "catalog",
    "engines",
    "kept_ids",
    "prefix_cache",
    "streaming",
    "answer_text",
    "messages",
    "settings",
    "strategies",
    "snippet",
    "stops",
    "errors",
]
PARTS = {"readme", "budgie"}  # programs and data beside the house
PACKAGE = sorted((ROOT / "parley").rglob("*.py"))


def imports(path):
    """The modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def floor(module):
    """The floor of a dotted name inside the package; what every engine promises lies below the engines."""
    parts = module.replace("engines.base", "base").split(".")
    return parts[1] if parts[0] == "parley" and len(parts) > 1 else None


def named(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


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
    assert len(APP.splitlines()) <= 80
    for shown in ("import spaces", "@spaces.GPU(duration=", "additional_inputs=", ".launch(", "POOL.place("):
        assert shown in APP
    from parley.ui.interface import Chat  # the chat that it makes

    assert "Chat(" in APP and Chat.__mro__[1].__name__ == "ChatInterface"


@pytest.mark.parametrize("path", PACKAGE, ids=named)
def test_imports_only_go_down(path):
    here = floor(named(path))
    if here in FLOORS:
        above = set(FLOORS[: FLOORS.index(here)]) | PARTS
        assert not above & {floor(module) for module in imports(path)}


@pytest.mark.parametrize("path", PACKAGE, ids=named)
def test_each_floor_knows_only_its_libraries(path):
    roots = {module.split(".")[0] for module in imports(path)}
    assert "spaces" not in roots
    if floor(named(path)) != "ui":
        assert "gradio" not in roots
    loop = floor(named(path)) == "strategies" and path.name != "__init__.py"
    if floor(named(path)) not in ("engines", "kept_ids", "prefix_cache", "streaming", "budgie") and not loop:
        assert not roots & {"torch", "transformers"}


@pytest.mark.parametrize("path", PACKAGE, ids=named)
def test_files_and_functions_can_be_held_in_mind(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 350
    functions = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert [f.name for f in functions if f.end_lineno - f.lineno >= 60] == []
