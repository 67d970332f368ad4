"""COMPILE=on: the same tokens; what is compiled is ready before the first turn, and nothing in the middle of one."""

import dataclasses
import gc
import threading
import weakref

import pytest
import torch
from torch._dynamo.utils import counters

from parley import strategies
from parley.engines import hardware
from parley.engines.hub import ModelRow
from parley.engines.loading import load
from parley.engines.local import LocalEngine
from parley.errors import ModelUnavailable
from parley.messages import Message
from parley.settings import Settings
from tests.hub_standin import save_tiny_model

if not hardware.machine().compiles:
    pytest.skip("for machines with a compiler", allow_module_level=True)

ASKED = [Message("user", "Say after me: the green owl reads the green book.")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("compiled") / "tiny", initializer_range=0.3)


def loaded(folder, told=None, **environ):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environ.items():
            patch.setenv(name, value)
        report = told.append if told is not None else lambda _: None
        return LocalEngine(load(ModelRow("m", str(folder), "Tiny"), report, threading.Event()))


@pytest.fixture(scope="module")
def told():
    return []


@pytest.fixture(scope="module")
def compiled(folder, told):
    return loaded(folder, told, COMPILE="on")


@pytest.fixture(scope="module")
def plain(folder):
    return loaded(folder)


def answer(engine, messages=ASKED, session="", draft=None, **values):
    asked = Settings(**({"model": "m", "strategy": "greedy", "max_new_tokens": 24, "seed": 1} | values))
    deltas = list(engine.stream(messages, asked, threading.Event(), draft, session))
    return "".join(delta.text for delta in deltas if not delta.replaces), deltas[-1]


class Layer:
    """Counts how often Python runs the first layer while it is entered; a compiled pass does not."""

    def __init__(self, engine):
        self.layer, self.runs = engine.loaded.model.model.layers[0], 0

    def __enter__(self):
        self.hook = self.layer.register_forward_hook(lambda *_: self.add())
        return self

    def add(self):
        self.runs += 1

    def __exit__(self, *_):
        self.hook.remove()


def test_the_tokens_are_those_of_the_model_as_it_was_and_python_runs_the_prompt_only(compiled, plain, told):
    assert "Compiling Tiny, which takes a minute or two" in told
    with Layer(compiled) as ours, Layer(plain) as theirs:
        mine, last = answer(compiled, strategy="green_list")
        assert mine == answer(plain, strategy="green_list")[0]
    assert last.usage.new_tokens == 24
    assert (ours.runs, theirs.runs) == (1, 24)
    assert last.ran.config["engine"] == "PyTorch float32 compiled"


def test_a_conversation_goes_on_from_its_cache(compiled, plain):
    first, _ = answer(compiled, session="a", strategy="green_list")
    talk = [*ASKED, Message("assistant", first), Message("user", "Once more, please.")]
    with Layer(compiled) as ours:
        text, last = answer(compiled, talk, session="a", strategy="green_list")
    assert last.usage.cached_tokens > 20
    assert ours.runs == 1
    assert text == answer(plain, talk, strategy="green_list")[0]


def test_a_token_after_padding_is_computed_as_before(compiled, plain):
    ids, mask = torch.tensor([[0, 0, 5, 6, 7]]), torch.tensor([[0, 0, 1, 1, 1]])
    model = compiled.loaded.model
    given = {"attention_mask": mask, "do_sample": False, "max_new_tokens": 8, "min_new_tokens": 8}
    with torch.inference_mode(), Layer(compiled) as ours:
        assert torch.equal(model.generate(ids, **given), plain.loaded.model.generate(ids, **given))
    assert ours.runs == 8


@pytest.mark.parametrize("name", strategies.STRATEGIES)
def test_every_strategy_runs_and_none_compiles_in_the_middle_of_a_turn(compiled, plain, name):
    before = counters["stats"]["unique_graphs"]
    drafts = (compiled, plain) if strategies.find(name).drafts else (None, None)
    mine, theirs = (
        answer(engine, draft=draft, strategy=name, exit_layer=1)
        for engine, draft in zip((compiled, plain), drafts, strict=True)
    )
    assert mine[1].usage.new_tokens == theirs[1].usage.new_tokens > 1
    if not strategies.find(name).samples:
        assert mine[0] == theirs[0]
    assert counters["stats"]["unique_graphs"] == before > 0


def test_a_model_that_is_given_up_is_freed(folder, compiled):
    engine = loaded(folder, COMPILE="on")
    model = weakref.ref(engine.loaded.model)
    assert answer(engine)[0] == answer(compiled)[0]
    del engine
    gc.collect()
    assert model() is None


def test_what_the_compiler_cannot_do_is_said_in_one_sentence(folder):
    from torch._inductor import config

    torch._dynamo.reset()
    broken = {"cpp.cxx": ("false",), "force_disable_caches": True}
    with config.patch(broken), pytest.raises(ModelUnavailable) as caught:
        loaded(folder, COMPILE="on")
    assert str(caught.value) == "Tiny cannot be compiled on this machine. Set COMPILE to off."


def test_the_plan_is_kept_beside_the_model(compiled, plain):
    assert dataclasses.replace(plain.loaded.fit, compiled=True) == compiled.loaded.fit
