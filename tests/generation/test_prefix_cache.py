"""The prefix cache changes no token: over random conversations, kinds of layers, strategies, stops and faults."""

import contextlib
import dataclasses
import io
import itertools
import random
import threading

import pytest
import torch
from transformers import GenerationConfig

from parley.engines.base import TurnRequest
from parley.engines.openvino.batch import MIN_CHUNK
from parley.engines.transformers.engine import TransformersEngine
from parley.events import Answer
from parley.generation.prefix_cache import SNAPSHOT_MARGIN, LeaseRequest
from parley.generation.prompt import render_prompt
from parley.messages import Message, build_messages
from parley.serving import turn
from parley.settings import Settings
from parley.strategies import STRATEGIES
from parley.ui.render import render
from tests.conftest import draft
from tests.standins.tiny_models import MODELS, UNFIT
from tests.strategies.loops import LOOPS, SPECULATIVE

WORDS = ("owl", "river", "lamp", "seven", "north", "garden", "window", "slow", "bread", "the", "of", "and", "under")
GREEDY = {"strategy": "greedy", "max_new_tokens": 12}


def fresh(torch_budgie):
    """An engine with Budgie's model and nothing remembered."""
    return TransformersEngine(torch_budgie.loaded)


def tiny_engine(torch_budgie, make):
    torch.manual_seed(1)
    model = make().eval()
    model.generation_config = GenerationConfig(eos_token_id=[2], pad_token_id=0)
    return TransformersEngine(dataclasses.replace(torch_budgie.loaded, model=model, context=768, layers=4))


@pytest.fixture(scope="module", params=MODELS)
def engine(torch_budgie, request):
    made = tiny_engine(torch_budgie, MODELS[request.param])
    said(made, build_messages([], "lamp"), "first", max_new_tokens=1)  # what is tried once per model takes passes too
    return made


def said(engine, messages, session="", cancel=None, **values):
    chosen = Settings.check(values)
    return sum(
        engine.stream(TurnRequest.of(messages, chosen, cancel or threading.Event(), draft("transformers"), session)),
        Answer(),
    )


def reading(history, question):
    return build_messages([m._asdict() for m in history], question)


@contextlib.contextmanager
def stop_at(model, layer, passes):
    """An event that is set when that layer has run so many times: the next layer stops."""
    cancel, ran = threading.Event(), []

    def count(*_):
        ran.append(1)
        if len(ran) == passes:
            cancel.set()

    hook = model.model.layers[layer].register_forward_hook(count)
    try:
        yield cancel
    finally:
        hook.remove()


def checked(engine, session, messages, cancel=None, **values):
    """One greedy turn, which must have given the tokens that the same prompt gives without a cache."""
    values = GREEDY | values
    prompt = render_prompt(engine.loaded, messages, Settings.check(values), engine.prefix_cache.sequence(session)).ids
    answer = said(engine, messages, session, cancel, **values)
    sequence = engine.prefix_cache.sequence(session)
    with torch.inference_mode():
        plain = engine.loaded.model.generate(
            prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=values["max_new_tokens"]
        )
    assert len(sequence) == answer.usage.prompt_tokens + answer.usage.new_tokens
    if answer.finish in ("end", "length"):
        assert list(sequence) == plain[0].tolist()
    else:
        assert list(sequence) == plain[0, : len(sequence)].tolist()
    return answer


def talk(engine, seed, turns, session="visitor"):
    """A random conversation with edits, retries, stops and stop strings; how many tokens the cache gave it."""
    chance = random.Random(seed)
    history, cached = [], 0
    for _ in range(turns):
        action = chance.choice(["ask", "ask", "ask", "retry", "edit", "stop", "stop string"])
        question = " ".join(chance.choices(WORDS, k=chance.randint(1, 12)))
        if action == "retry" and history:
            question = history[-2].content
            history = history[:-2]
        elif action == "edit" and history:
            history = history[: 2 * chance.randrange(len(history) // 2)]
        messages = reading(history, question)
        if action == "stop":
            with stop_at(engine.loaded.model, chance.randrange(3), chance.randint(1, 6)) as cancel:
                answer = checked(engine, session, messages, cancel)
        else:
            stops = {"stop": chance.choice("aeio")} if action == "stop string" else {}
            answer = checked(engine, session, messages, **stops)
        cached += answer.usage.cached_tokens
        if answer.text.strip():
            history += [Message("user", question), Message("assistant", answer.text)]
    return cached


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_no_greedy_token_of_a_random_conversation_changes(torch_budgie, seed):
    assert talk(fresh(torch_budgie), seed, turns=8) > 100


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_no_greedy_token_changes_whatever_the_layers_keep(engine, seed):
    assert talk(engine, seed, turns=8, session=f"visitor {seed}") > 0


@pytest.mark.parametrize("make", UNFIT.values(), ids=UNFIT)
def test_a_model_whose_state_cannot_be_continued_is_read_from_the_beginning(torch_budgie, make):
    engine = tiny_engine(torch_budgie, make)
    for question in ("owl", "river"):
        assert said(engine, reading([], question), "a", **GREEDY).usage.cached_tokens == 0
    assert engine.prefix_cache.bytes == 0


def with_history(engine, session, strategy="greedy"):
    """The messages of a second turn, after a first one that the session remembers."""
    question = "Tell me a story about an owl."
    first = said(engine, build_messages([], question), session, strategy=strategy, seed=3, max_new_tokens=30)
    return reading([Message("user", question), Message("assistant", first.text)], "Repeat after me: the owl, the owl")


@pytest.mark.slow
@pytest.mark.parametrize("name", [*LOOPS, *(pytest.param(n, marks=pytest.mark.slow) for n in SPECULATIVE[1:])])
def test_every_loop_gives_the_same_answer_with_the_cache_and_without(torch_budgie, name):
    engine = fresh(torch_budgie)
    values = {"strategy": name, "seed": 7, "max_new_tokens": 30, "force_words": "lantern", "temperature": 1.0}
    for strategy in ("greedy", name):  # what a strategy leaves behind must be as good as what greedy search leaves
        messages = with_history(engine, strategy, strategy)
        plain = said(engine, messages, **values)
        cached = said(engine, messages, strategy, **values)
        assert cached.text == plain.text and cached.usage.new_tokens == plain.usage.new_tokens
        assert cached.usage.prompt_tokens == plain.usage.prompt_tokens
        found = cached.usage.cached_tokens
        assert plain.usage.cached_tokens == 0
        assert found == 0 if STRATEGIES[name].needs_full_prefill else 10 < found < cached.usage.prompt_tokens
        again = said(engine, messages, strategy, **values)
        assert again.text == plain.text


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in LOOPS if n not in SPECULATIVE and not STRATEGIES[n].needs_full_prefill])
def test_every_loop_gives_the_same_answer_whatever_the_layers_keep(engine, name):
    values = {"strategy": name, "seed": 7, "max_new_tokens": 8, "force_words": "lantern"}
    said(engine, reading([], "owl river lamp seven north garden window"), name, **values)
    messages = reading([], "owl river lamp seven north garden window")
    plain, cached = said(engine, messages, **values), said(engine, messages, name, **values)
    assert cached.text == plain.text
    assert cached.usage.cached_tokens > 0


QUICK = [("sliding", "prompt_lookup"), ("sliding and full", "assisted"), ("convolution", "prompt_lookup")]
PAIRS = [*itertools.product(("sliding", "sliding and full"), SPECULATIVE), ("convolution", "assisted"), QUICK[-1]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "name"), [pair if pair in QUICK else pytest.param(*pair, marks=pytest.mark.slow) for pair in PAIRS]
)
def test_speculation_leaves_windows_and_convolutions_as_greedy_search_does(torch_budgie, kind, name):
    engine = tiny_engine(torch_budgie, MODELS[kind])
    values = {"strategy": name, "exit_layer": 2}
    messages = reading([], "owl river lamp seven owl river lamp seven owl river")
    for _ in range(2):
        drafted = checked(engine, "a", messages, **values)
        assert checked(engine, "b", messages).text == drafted.text
        messages = [*messages, Message("assistant", drafted.text), Message("user", "owl river lamp seven")]
        for session in "ab":
            checked(engine, session, messages)
        after, plain = (engine.prefix_cache.session(session) for session in "ab")
        assert after.bytes < 1.1 * plain.bytes  # nothing goes on to record the past
    assert said(engine, messages, "a", **GREEDY).usage.cached_tokens > 30


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_after_a_stop_in_the_middle_of_a_step_the_next_tokens_are_right(engine, layer):
    """Some layers have seen a token that others have not, and not all of them say so."""
    with stop_at(engine.loaded.model, layer, passes=5) as cancel:
        stopped = checked(engine, "a", reading([], "owl river lamp seven north garden window"), cancel)
    assert stopped.finish == "stopped" and stopped.usage.new_tokens > 1
    further = [*engine.prefix_cache.sequence("a"), 300, 301, 302]
    model, ids = engine.loaded.model, torch.tensor([further])
    given = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 8, "do_sample": False}
    with (
        torch.inference_mode(),
        engine.prefix_cache.acquire(LeaseRequest("a", further, 1, len(further) + 8, lambda: [])) as loan,
    ):
        assert loan.cached_tokens >= stopped.usage.prompt_tokens - SNAPSHOT_MARGIN
        assert torch.equal(model.generate(ids, **given, **loan.arguments), model.generate(ids, **given))


def test_all_but_the_new_message_comes_from_the_cache(torch_budgie):
    engine = fresh(torch_budgie)
    messages = with_history(engine, "a")
    answer = said(engine, messages, "a", **GREEDY)
    new = answer.usage.prompt_tokens - answer.usage.cached_tokens
    alone = said(engine, messages[-1:], **GREEDY).usage.prompt_tokens
    assert new <= alone + 3  # the last token of the answer, the mark that ends it, a line break


def test_the_cache_is_right_after_a_stop_in_the_middle_of_a_prefill(torch_budgie):
    engine = fresh(torch_budgie)
    messages = with_history(engine, "a")
    for layer in range(5):
        with stop_at(engine.loaded.model, layer, passes=1) as cancel:
            stopped = said(engine, messages, "a", cancel, **GREEDY)
        assert (stopped.finish, stopped.usage.new_tokens) == ("stopped", 0)
        assert stopped.usage.cached_tokens > 20  # what the stop before this one left
    checked(engine, "a", messages)


def test_after_an_exception_nothing_is_remembered_and_the_next_turn_is_right(torch_budgie):
    engine = fresh(torch_budgie)
    messages = with_history(engine, "a")

    def fail(*_):
        raise RuntimeError("out of memory")

    hook = engine.loaded.model.model.layers[3].register_forward_hook(fail)
    try:
        with pytest.raises(RuntimeError, match="out of memory"):
            said(engine, messages, "a", **GREEDY)
    finally:
        hook.remove()
    assert engine.prefix_cache.sequence("a") == () and engine.prefix_cache.bytes == 0
    assert checked(engine, "a", messages).usage.cached_tokens == 0


def test_sessions_never_share_and_without_a_name_nothing_is_kept(torch_budgie):
    engine = fresh(torch_budgie)
    messages = with_history(engine, "a")
    assert said(engine, messages, "b", **GREEDY).usage.cached_tokens == 0
    before = engine.prefix_cache.bytes
    for _ in range(2):
        assert said(engine, messages, "", **GREEDY).usage.cached_tokens == 0
    assert engine.prefix_cache.bytes == before > 0
    assert said(engine, messages, "a", **GREEDY).usage.cached_tokens > 20


def test_a_turn_of_the_app_profits_from_the_session_s_last_one_and_says_so():
    history = reading([], "Hello, who are you?")
    chosen = Settings.check({"model": "budgie", **GREEDY})
    first, again = (sum(turn.reply(run, history, chosen, "visitor"), Answer()) for run in ("1", "2"))
    known, read = again.usage.cached_tokens, again.usage.prompt_tokens
    assert first.usage.cached_tokens == 0 and known >= read - MIN_CHUNK
    line, *_ = render(again)[::-1]
    assert f"Prompt: {read} tokens, {known} of them cached" in line.content[0]["text"]


@pytest.mark.slow
def test_an_answer_in_unusual_tokens_is_found_again_in_the_cache(torch_budgie):
    engine, unusual = tiny_engine(torch_budgie, MODELS["full"]), 0
    values = {"strategy": "sampling", "temperature": 2.0, "top_k": 0, "top_p": 1.0, "max_new_tokens": 6}
    for seed in range(64):
        first = said(engine, reading([], "owl river"), "a", **values, seed=seed)
        history = [Message("user", "owl river"), Message("assistant", first.text)]
        if first.text.strip():
            messages, kept = reading(history, "lamp"), engine.prefix_cache.sequence("a")
            cut_anew = render_prompt(engine.loaded, messages, Settings()).ids[0].tolist()
            again = checked(engine, "a", messages)
            if cut_anew[: len(kept)] != list(kept) and again.usage.cached_tokens == len(kept) - 1:
                unusual += 1
    assert unusual > 0


def test_the_program_of_an_answer_after_unusual_tokens_gives_its_text_again(torch_budgie):
    engine = fresh(torch_budgie)
    values = {"strategy": "sampling", "temperature": 2.0, "top_k": 0, "top_p": 1.0, "max_new_tokens": 8}
    for seed in itertools.count():
        first = said(engine, reading([], "owl river"), "a", **values, seed=seed)
        history = [Message("user", "owl river"), Message("assistant", first.text)]
        again = said(engine, reading(history, "Hello, who are you?"), "a", **GREEDY)
        if "as generated" in again.run_record.program:
            break
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(again.run_record.program, {})
    assert printed.getvalue().strip() == again.text.strip() != ""
