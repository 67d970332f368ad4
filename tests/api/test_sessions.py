"""A new session costs little, and is described as Gradio describes it. A turn changes threads for no setting."""

from copy import copy

import anyio
import httpx2
import pytest
from gradio.blocks import BlocksConfig
from gradio.components import Component
from gradio.state_holder import SessionState

from tests.api.test_between_visitors import WAYS, join


@pytest.fixture
def described(monkeypatch):
    """The components that were described, in order."""
    found = list[int]()
    describe = BlocksConfig.config_for_block

    def counted(id, *rest):
        found.append(id)
        return describe(id, *rest)

    monkeypatch.setattr(BlocksConfig, "config_for_block", staticmethod(counted))
    return found


def test_a_session_is_described_as_gradio_describes_it(inside):
    config = inside.demo.default_config
    stock = {id: BlocksConfig.config_for_block(id, [], block) for id, block in config.blocks.items()}
    assert SessionState(inside.demo).config_values == stock


def test_the_page_is_described_once_for_all_sessions(inside, described):
    SessionState(inside.demo)
    described.clear()
    SessionState(inside.demo)
    assert described == []


def test_what_a_session_changes_is_its_own(inside, described):
    one, other = SessionState(inside.demo), SessionState(inside.demo)
    box = next(each for each in inside.demo.blocks.values() if getattr(each, "elem_id", None) == "message")
    one._update_value_in_config(box._id, "of one")
    assert one.config_values[box._id]["props"]["value"] == "of one"
    assert other.config_values[box._id]["props"].get("value") != "of one"
    described.clear()
    changed = copy(box)
    changed.label = "Another label"
    one[box._id] = changed
    one._update_config(box._id)
    assert box._id in described and one.config_values[box._id]["props"]["label"] == "Another label"
    assert SessionState(inside.demo).config_values[box._id]["props"]["label"] == box.label


@pytest.mark.parametrize("way", ["chat", "generate", "page"])
def test_gradio_changes_threads_for_no_value_of_a_turn(inside, way, monkeypatch):
    """Else one turn would cost sixty changes of threads, each of which may wait for Python's lock."""
    run, prepared = anyio.to_thread.run_sync, list[str]()

    async def counted(work, *given, **rest):
        if isinstance(getattr(work, "__self__", None), Component):
            prepared.append(repr(work))
        return await run(work, *given, **rest)

    monkeypatch.setattr(anyio.to_thread, "run_sync", counted)
    with httpx2.Client(base_url=inside.url, timeout=250) as http:
        assert "nonce1n" in WAYS[way](http, 1, inside, "nonce1n", "parrot")
    assert prepared == []


def test_an_empty_box_for_a_number_leaves_the_value_to_the_model(inside):
    with httpx2.Client(base_url=inside.url, timeout=250) as http:
        said = join(http, 2, inside, "nonce2n", "parrot", seed="", temperature="", system_prompt="")
    assert "nonce2n" in said and "must be" not in said
