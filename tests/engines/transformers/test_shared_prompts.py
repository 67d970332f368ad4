"""The prompt of a comparison is read once by a model of torch, whatever its cache is made of."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from parley.engines.base import TurnRequest
from parley.engines.loader import load
from parley.events import Answer
from parley.models import registry
from parley.serving.model_pool import local_engine
from parley.settings import Settings
from tests.engines.openvino.asking import LONG, answer
from tests.standins.hub import save_tiny_model

COLUMNS = ({}, {"strategy": "sampling"}, {"strategy": "beams"}, {"strategy": "dola"}, {"strategy": "prompt_lookup"})


class Read:
    """Counts the tokens that a model reads in passes of several, as prompts are read."""

    def __init__(self, model):
        self.tokens, forward = 0, model.forward._forward

        def counted(*positional, **named):
            tokens = named["input_ids"].shape[1]
            self.tokens += tokens if tokens > 21 else 0  # more than a pass with drafts has
            return forward(*positional, **named)

        model.forward._forward = counted


def together(engine, columns):
    shared = engine.shared_prompts("")

    def ask(values):
        settings = Settings.check({"strategy": "greedy", "seed": 5, "max_new_tokens": 16, **values})
        return sum(engine.stream(TurnRequest.of(LONG, settings, threading.Event(), shared=shared)), Answer())

    with ThreadPoolExecutor(len(columns)) as threads:
        return list(threads.map(ask, columns))


def test_one_reading_serves_all_columns(torch_budgie):
    alone = [answer(torch_budgie, LONG, **values).ids for values in COLUMNS]
    forward = torch_budgie.loaded.model.forward._forward
    read = Read(torch_budgie.loaded.model)
    try:
        found = together(torch_budgie, COLUMNS)
    finally:
        torch_budgie.loaded.model.forward._forward = forward
    assert [each.ids for each in found] == alone
    prompt = found[0].usage.prompt_tokens
    assert {each.usage.cached_tokens for each in found} == {prompt - 1}
    assert prompt - 21 <= read.tokens <= prompt


@pytest.mark.slow
def test_a_model_with_a_state_reads_it_once_too(tmp_path, monkeypatch):
    folder = save_tiny_model(tmp_path / "stateful", "Mamba", state_size=4)
    monkeypatch.setenv("MODEL_IDS", str(folder))
    engine = local_engine(load(registry.find(""), lambda _: None, threading.Event()))
    columns = ({}, {"strategy": "sampling"})
    alone = [answer(engine, LONG, **values).ids for values in columns]
    found = together(engine, columns)
    assert [each.ids for each in found] == alone
    assert {each.usage.cached_tokens for each in found} <= {found[0].usage.prompt_tokens - 1, 0}
