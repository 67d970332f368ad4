"""Turns of models of every kind advance together, and a long prompt beside them gets the tokens that it gets alone."""

import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from parley.engines.transformers.engine import TransformersEngine
from parley.messages import Message
from tests.conftest import until
from tests.engines.openvino.asking import answer
from tests.standins.positions import CASES, CONTEXT, QUICK, config_of
from tests.standins.tiny_models import MODELS

PROMPT = "Tell me a story about an owl and a lamp by the river. "
SLICED = [case if case in QUICK else pytest.param(case, marks=pytest.mark.slow) for case in CASES]


def engine_of(torch_budgie, model):
    model.generation_config = GenerationConfig(eos_token_id=None, pad_token_id=0)
    loaded = dataclasses.replace(torch_budgie.loaded, model=model.eval(), context=CONTEXT, layers=2)
    return TransformersEngine(loaded)


def make(torch_budgie, case):
    torch.manual_seed(1)
    return engine_of(torch_budgie, AutoModelForCausalLM.from_config(config_of(case), dtype=torch.float32))


class Reads:
    """The passes of a model, by thread and size, while it is entered."""

    def __init__(self, scheduler):
        self.scheduler, self.seen = scheduler, []

    def __enter__(self):
        self.forward = self.scheduler._forward

        def noted(**arguments):
            self.seen.append((threading.get_ident(), tuple(arguments["input_ids"].shape)))
            return self.forward(**arguments)

        self.scheduler._forward = noted
        return self.seen

    def __exit__(self, *_):
        self.scheduler._forward = self.forward


@pytest.mark.parametrize("case", SLICED)
def test_a_long_prompt_beside_others_gets_its_own_tokens_and_is_read_in_slices_where_it_may(torch_budgie, case):
    engine, cancel = make(torch_budgie, case), threading.Event()
    question = [Message("user", PROMPT * 22)]
    alone = answer(engine, question, max_new_tokens=12)
    with ThreadPoolExecutor(2) as threads, Reads(engine.scheduler) as seen:
        others = [threads.submit(answer, engine, [Message("user", "Go on.")], cancel, max_new_tokens=400)]
        until(lambda: len(seen) > 3)
        beside = answer(engine, question, max_new_tokens=12)
        cancel.set()
        assert others[0].result().finish in ("stopped", "length", "context")
    assert beside.text == alone.text and beside.usage.new_tokens == 12
    longest = max(shape[1] for _, shape in seen)
    rotation = engine.scheduler._rotation
    constant = rotation.at(64) == rotation.at(alone.usage.prompt_tokens)
    assert (longest <= engine.scheduler.max_rows) == constant


@pytest.mark.parametrize("name", [name for name in MODELS if name != "full"])
def test_turns_that_cannot_share_a_pass_advance_together(torch_budgie, name):
    torch.manual_seed(1)
    engine, cancel = engine_of(torch_budgie, MODELS[name]()), threading.Event()
    line = engine.scheduler.line
    with ThreadPoolExecutor(3) as threads, Reads(engine.scheduler) as seen:
        turns = [
            threads.submit(answer, engine, [Message("user", "Go on.")], cancel, max_new_tokens=400) for _ in range(3)
        ]
        until(lambda: len(seen) > 30)
        line.max_left_out = 0
        until(lambda: len(seen) > 90)
        most = line.max_left_out
        cancel.set()
        assert all(turn.result().finish == "stopped" for turn in turns)
    assert most <= 2
    assert len({thread for thread, _ in seen}) == 3


@pytest.mark.parametrize("name", ["sliding", "linear"])
def test_their_tokens_are_those_that_they_get_alone(torch_budgie, name):
    torch.manual_seed(1)
    engine = engine_of(torch_budgie, MODELS[name]())
    asked = [[Message("user", PROMPT * number + "Go on.")] for number in range(4)]
    alone = [answer(engine, question, max_new_tokens=20).text for question in asked]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda question: answer(engine, question, max_new_tokens=20).text, asked))
    assert together == alone
