"""Greedy search and sampling by our loop: the tokens of transformers' own, with drafts and without, any cache."""

import copy
import dataclasses
import threading

import pytest
import torch
from transformers import GenerationConfig, LogitsProcessorList

from parley.engines.base import TurnRequest
from parley.engines.transformers.engine import TransformersEngine
from parley.events import Answer
from parley.generation.prefix_cache import croppable, new_cache
from parley.messages import Message
from parley.settings import Settings
from parley.strategies.decoders import prompt_lookup
from parley.strategies.decoders.decode_loop import decode_loop
from parley.strategies.decoders.prompt_lookup import PromptLookup
from parley.strategies.processors.samplers.top_n_sigma import TopNSigma
from parley.strategies.processors.thinking_budget import ThinkingBudget
from tests import conftest
from tests.conftest import Passes
from tests.standins.tiny_models import MODELS

QUESTIONS = [
    "Repeat after me: red tea, green tea, red tea, green tea, red tea, green tea, red tea, green tea, red tea",
    "Hello, who are you?",
    "Say after me: the green owl reads the green book and the green owl sleeps.",
]
WAYS = {
    "greedy": {"do_sample": False},
    "sampling": {"do_sample": True, "temperature": 0.7, "top_k": 50, "top_p": 0.9},
    "hot": {"do_sample": True, "temperature": 1.6, "top_k": 0, "top_p": 0.95},
    "penalised": {"do_sample": True, "temperature": 1.0, "repetition_penalty": 1.2, "no_repeat_ngram_size": 4},
    "truncated": {"do_sample": True, "temperature": 1.0, "min_p": 0.05, "typical_p": 0.9, "eta_cutoff": 0.001},
}


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("budgie", id="openvino"),
        pytest.param("torch_budgie", id="transformers", marks=pytest.mark.slow),
    ],
)
def model(request):
    return request.getfixturevalue(request.param).loaded.model


def prompt_of(budgie, question):
    chat = [{"role": "user", "content": question}]
    return budgie.loaded.tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )["input_ids"]


def made(model, ids, way, *, new=48, lookup=None, processors=()):
    """The tokens of an answer, by the stock search or by ours, and what became of the drafts."""
    drafts = []
    config = GenerationConfig(
        max_new_tokens=new, pad_token_id=0, eos_token_id=model.generation_config.eos_token_id, **way
    )
    loop = {} if lookup is None else {"custom_generate": decode_loop, "lookup": lookup, "on_token": lambda _: None}
    if loop:
        loop["on_draft"] = lambda *counts: drafts.append(counts)
    torch.manual_seed(5)
    with torch.inference_mode():
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            generation_config=config,
            logits_processor=LogitsProcessorList(processors),
            **loop,
        )
    return out[0, ids.shape[1] :].tolist(), drafts


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("question", QUESTIONS)
def test_drafting_changes_no_token(budgie, model, way, question):
    ids = prompt_of(budgie, question)
    stock, _ = made(model, ids, WAYS[way])
    alone, none = made(model, ids, WAYS[way], lookup=False)
    drafted, drafts = made(model, ids, WAYS[way], lookup=True)
    assert stock == alone == drafted
    assert not none and all(0 <= right <= count for count, right in drafts)


@pytest.mark.parametrize("way", ["greedy", "sampling"])
def test_what_is_said_again_is_drafted_and_takes_fewer_passes(endless, way):
    ids = prompt_of(endless, "Repeat after me: lamp river window bread")  # and it does so for ever
    with Passes(endless.loaded.model) as passes:
        answer, drafts = made(endless.loaded.model, ids, WAYS[way], new=90, lookup=True)
    right = sum(right for _, right in drafts)
    assert right > 60
    assert passes.count == len(answer) - right


def test_what_our_own_processors_forbid_is_not_drafted_past(budgie, model):
    ids = prompt_of(budgie, QUESTIONS[2])
    processors = [TopNSigma(1.0), ThinkingBudget(3, ids.shape[1], [], [5, 6])]
    both = [made(model, ids, WAYS["hot"], lookup=lookup, processors=processors) for lookup in (None, True)]
    assert both[0][0] == both[1][0]
    assert both[0][0][3:5] == [5, 6]  # the thought was closed


@pytest.mark.parametrize("kind", ["full", "sliding", "sliding and full"])
@pytest.mark.parametrize("way", ["greedy", "sampling"])
def test_every_kind_of_cache_gives_the_same_tokens(kind, way):
    torch.manual_seed(1)
    model = MODELS[kind]().eval()
    model.generation_config = GenerationConfig(eos_token_id=[2], pad_token_id=0)
    ids = torch.randint(5, 2000, (1, 12)).repeat(1, 4)
    lookup = croppable(new_cache(model), ids.shape[1] + 40)
    assert made(model, ids, WAYS[way], new=40)[0] == made(model, ids, WAYS[way], new=40, lookup=lookup)[0]


def test_a_stop_while_drafts_are_in_flight_leaves_a_cache_that_can_be_used():
    engine = conftest.endless_engine()
    question = Message("user", "Repeat after me: lamp river window bread")
    settings = Settings.check(
        {"strategy": "greedy", "max_new_tokens": 60, "stop": "bread lamp river window bread lamp"}
    )

    def said(session, *messages):
        return sum(engine.stream(TurnRequest.of(messages, settings, threading.Event(), session=session)), Answer())

    first = said("a", question)
    assert first.finish == "stop string" and first.usage.accepted
    talk = [question, Message("assistant", first.text), Message("user", "Go on, please.")]
    remembered, anew = said("a", *talk), said("", *talk)
    assert remembered.text == anew.text and remembered.usage.cached_tokens > 20


@pytest.mark.slow
@pytest.mark.parametrize("quantization", ["none", "int8"])
@pytest.mark.parametrize("name", ["openvino", "transformers"])
def test_drafts_stand_behind_answers_in_exact_numbers(name, quantization):
    engine = conftest.engine(QUANTIZATION=quantization, ENGINE=name)
    settings = Settings.check({"strategy": "greedy", "max_new_tokens": 40})
    answer = sum(engine.stream(TurnRequest.of([Message("user", QUESTIONS[2])], settings, threading.Event())), Answer())
    assert answer.run_record.config["lookup"] is True
    assert answer.usage.drafted > 0


def test_16_bit_numbers_are_not_drafted_ahead(torch_budgie):
    half = copy.deepcopy(torch_budgie.loaded.model).bfloat16()
    fit = dataclasses.replace(torch_budgie.loaded.plan, dtype=torch.bfloat16)
    engine = TransformersEngine(dataclasses.replace(torch_budgie.loaded, model=half, plan=fit))
    settings = Settings.check({"strategy": "greedy", "max_new_tokens": 40})
    answer = sum(engine.stream(TurnRequest.of([Message("user", QUESTIONS[2])], settings, threading.Event())), Answer())
    assert "lookup" not in answer.run_record.config and not answer.usage.drafted


def test_wrong_drafts_become_rare():
    period = [*range(100, 110)]
    drafts = PromptLookup(period * 3)
    passes = 0
    for step in range(400):
        drafted = drafts.propose(prompt_lookup.MAX_DRAFT_TOKENS)
        drafts.append(step % 10 + 100 if step % 10 != 9 else 999 + step)  # never what followed before
        if drafted:
            passes += 1
            drafts.record(len(drafted), 0)
    assert 3 <= passes <= 12


def test_right_drafts_grow():
    drafts, lengths = PromptLookup([*range(100, 140)] * 2), []
    for _ in range(4):
        drafted = drafts.propose(40)
        lengths.append(len(drafted))
        for token in drafted:
            drafts.append(token)
        drafts.record(len(drafted), len(drafted))
    assert lengths == [4, 8, 16, 16]


def test_a_free_draft_needs_one_token_that_is_the_same_and_grows_to_all_rows_of_a_pass():
    drafts, lengths = PromptLookup([*range(100, 140)] * 2, free=1), []
    for _ in range(5):
        drafted = drafts.propose(40)
        lengths.append(len(drafted))
        for token in drafted:
            drafts.append(token)
        drafts.record(len(drafted), len(drafted))
    assert lengths == [1, 3, 7, 15, 15]
    drafts.record(15, 14)
    assert len(drafts.propose(40)) == 1
    assert PromptLookup([5, 6, 7, 5], free=1).propose(40) == [6]
    assert PromptLookup([5, 6, 7, 5]).propose(40) == []


def test_drafts_go_round_with_the_text():
    assert PromptLookup([7, 8, 9, 1, 2, 3, 1, 2, 3]).propose(40) == [1, 2, 3, 1]


def test_no_more_is_drafted_than_there_is_room_for():
    drafts = PromptLookup([*range(100, 110)] * 2)
    assert len(drafts.propose(2)) == 2
    assert drafts.propose(0) == [] == drafts.propose(-1)
