"""The real model comes once, whole, and by itself; without a registry the tests that need it say so."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from benchmarks import cache
from benchmarks.real_model import VARIABLE, NotReachable, folder
from tests.conftest import lacking


@pytest.fixture
def nothing_yet(monkeypatch, tmp_path):
    """A user whose cache is empty; the folder of what is fetched for Parley."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "parley"


@pytest.fixture
def no_registry(monkeypatch):
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")


def test_it_knows_the_capital_of_france(real_model):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(real_model)
    model = AutoModelForCausalLM.from_pretrained(real_model, dtype=torch.float32)
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    said = model.generate(**asked, max_new_tokens=16, do_sample=False)[0, asked["input_ids"].shape[1] :]
    assert tokenizer.decode(said) == "The capital of France is Paris.<|im_end|>"  # and it ends by itself


def test_two_that_ask_at_once_get_one_folder(nothing_yet):
    begun, both, second = [], threading.Barrier(2), threading.Event()

    def make(path):
        begun.append(path)
        if len(begun) > 1:
            second.set()
        second.wait(0.5)  # for another that makes it too, where nothing keeps it from that
        path.mkdir()
        (path / "whole").touch()

    def ask(_):
        both.wait()
        made = cache.once(cache.preload("thing"), make)
        return made, (made / "whole").exists()

    with ThreadPoolExecutor(2) as threads:
        got = list(threads.map(ask, range(2)))
    assert got == [(nothing_yet / "thing", True)] * 2
    assert len(begun) == 1


def test_what_could_not_be_made_leaves_nothing_and_is_tried_again(nothing_yet):
    def broken(path):
        path.mkdir()
        (path / "half").touch()
        raise NotReachable

    place = cache.preload("thing")
    with pytest.raises(NotReachable):
        cache.once(place, broken)
    assert not [path for path in nothing_yet.iterdir() if path.suffix != ".lock"]
    assert cache.once(place, lambda path: path.mkdir()) == place
    assert place.is_dir()


def test_a_folder_that_is_ready_is_taken_as_it_is(monkeypatch, tiny, tmp_path):
    monkeypatch.setenv(VARIABLE, str(tiny))
    assert folder() == tiny
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        folder()


@pytest.mark.slow
def test_without_a_registry_a_sentence_says_so(nothing_yet, no_registry):
    with pytest.raises(NotReachable, match=f"cannot be fetched .*connect pip to a registry, or .* {VARIABLE}"):
        folder()
    assert not [path for path in nothing_yet.iterdir() if path.suffix != ".lock"]


@pytest.mark.parametrize(("ci", "outcome"), [("", pytest.skip.Exception), ("true", pytest.fail.Exception)])
def test_what_a_machine_lacks_skips_a_test_and_fails_it_in_ci(monkeypatch, ci, outcome):
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome, match="no registry"):
        lacking("no registry")
