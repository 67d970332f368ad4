"""Every row of the table of strategies, run by the local engine as Budgie."""

import itertools
import json
import math
import subprocess
import sys
import threading

import pytest
import torch
from transformers import GenerationConfig, LogitsProcessorList

from parley.engines.base import TurnRequest
from parley.errors import BadConversation, BadSetting
from parley.events import Answer
from parley.generation import generation_config
from parley.generation.prompt import render_prompt
from parley.messages import build_messages
from parley.settings import OPTIONS, Settings
from parley.strategies import STRATEGIES
from parley.strategies.strategy import GROUPS, SOONER
from tests.conftest import ROOT, Passes, draft
from tests.strategies.loops import LOOPS, SAMPLING, SPECULATIVE

ALL = list(STRATEGIES)
BEAMED = [name for name in LOOPS if name.endswith("beams")]


def settings(strategy, **values):
    return Settings.check({"strategy": strategy, "seed": 5, "max_new_tokens": 40, **values})


def deltas(engine, chosen, question="Tell me a story about an owl.", cancel=None):
    messages = build_messages([], question) if isinstance(question, str) else question
    return list(engine.stream(TurnRequest.of(messages, chosen, cancel or threading.Event(), draft())))


def plan(engine, chosen):
    prompt = render_prompt(engine.loaded, build_messages([], "Hello"), chosen)
    return generation_config.plan_generation(
        engine.loaded, STRATEGIES[chosen.strategy], chosen, prompt, draft().loaded
    )


def answer(engine, chosen, question="Tell me a story about an owl."):
    return sum(deltas(engine, chosen, question), Answer())


def test_each_row_says_what_a_reader_wants_to_know():
    groups = [row.group for row in STRATEGIES.values()]
    assert tuple(dict.fromkeys(groups)) == GROUPS and groups == sorted(groups, key=GROUPS.index)
    for row in STRATEGIES.values():
        says_so = "the text of greedy search" in row.when
        assert says_so is (row.group == SOONER and not row.samples)
        assert row.summary.endswith(".") and row.when.endswith(".") and row.source.startswith("https://")
        assert set(row.uses) <= set(OPTIONS)
        assert callable(row.decode())


@pytest.mark.parametrize("name", LOOPS)
def test_it_streams_and_its_last_text_is_the_answer(budgie, unthrottled, name):
    made = deltas(budgie, settings(name))
    answers = [sum(made[: i + 1], Answer()) for i in range(len(made))]
    texts = list(dict.fromkeys(a.text for a in answers if a.text))
    assert len(texts) >= 3
    assert answers[-1].finish in ("end", "length")
    assert answers[-1].usage.new_tokens > 10
    assert answers[-1].seed == (5 if STRATEGIES[name].samples else None)


@pytest.mark.parametrize("name", SAMPLING)
def test_equal_seeds_give_equal_text(budgie, name):
    first, second = (answer(budgie, settings(name)) for _ in range(2))
    assert first.text == second.text and first.seed == 5


@pytest.mark.parametrize("name", LOOPS)
def test_stop_ends_it_within_one_step_and_keeps_what_there_is(endless, name):
    cancel = threading.Event()
    chosen = settings(name, max_new_tokens=900, force_words="lantern")
    so_far, passes_at_stop = Answer(), None
    with Passes(endless.loaded.model) as passes:
        for delta in endless.stream(TurnRequest.of(build_messages([], "Tell me a story."), chosen, cancel, draft())):
            so_far += delta
            if len(so_far.text) > 20 and not cancel.is_set():
                cancel.set()
                passes_at_stop = passes.count
    assert so_far.finish == "stopped"
    assert len(so_far.text) > 20
    assert endless.loaded.model.config.num_hidden_layers == 6  # an early exit changes it while it drafts
    assert passes.count - passes_at_stop <= 1 + chosen.draft_tokens * (name in SPECULATIVE)


@pytest.mark.parametrize("name", LOOPS)
def test_a_stop_string_ends_it(budgie, name):
    whole = answer(budgie, settings(name)).text
    word = whole.split()[5]
    cut = answer(budgie, settings(name, stop=word))
    assert cut.finish == "stop string"
    assert word not in cut.text


@pytest.mark.slow
@pytest.mark.parametrize("name", LOOPS)
def test_no_n_gram_occurs_twice_when_that_is_forbidden(endless, name):
    made = answer(endless, settings(name, max_new_tokens=90, no_repeat_ngram_size=2))
    ids = endless.loaded.tokenizer.encode(made.text, add_special_tokens=False)
    pairs = list(itertools.pairwise(ids))
    assert len(pairs) - len(set(pairs)) <= 1  # text that is read again may be cut differently at its ends


@pytest.mark.slow
@pytest.mark.parametrize("name", SPECULATIVE)
@pytest.mark.parametrize(
    "question", ["Hello, who are you?", "Repeat after me: red tea, red tea, red tea", "Count to 9.", "Say: 好 😀 café"]
)
def test_speculation_gives_the_text_of_greedy_search(budgie, name, question):
    fast = answer(budgie, settings(name), question)
    assert fast.text == answer(budgie, settings("greedy"), question).text
    assert 0 <= fast.usage.accepted <= fast.usage.drafted


@pytest.mark.parametrize("name", ["assisted", "universal_assisted", "early_exit"])
def test_drafts_are_counted_and_as_many_as_was_set(budgie, name):
    few, many = (answer(budgie, settings(name, exit_layer=5, draft_tokens=n)).usage for n in (1, 10))
    assert few.drafted >= few.accepted > 5 and many.accepted > 5
    assert few.drafted <= few.new_tokens  # one for each check, and each check adds a token of its own
    assert many.drafted > 2 * few.drafted


@pytest.mark.parametrize("name", BEAMED)
def test_beams_are_shown_with_their_scores_the_best_first(budgie, unthrottled, name):
    made = deltas(budgie, settings(name))
    tables = [delta.beams for delta in made if delta.beams]
    assert len(tables) >= 3
    for delta in made:
        if delta.beams:
            assert delta.replaces and delta.text == delta.beams[0].text
    assert all(math.isfinite(beam.score) and beam.score <= 0 for beams in tables for beam in beams)
    if name != "constrained_beams":
        assert all(beams[0].score == max(beam.score for beam in beams) for beams in tables)


def test_the_words_that_must_occur_do(budgie):
    made = answer(
        budgie, settings("constrained_beams", force_words="lantern", max_new_tokens=80), "Hello, who are you?"
    )
    assert "lantern" in made.text


def test_nothing_of_the_models_own_configuration_or_of_the_librarys_defaults_decides(budgie):
    for name, row in STRATEGIES.items():
        config = GenerationConfig(**plan(budgie, settings(name)).config)
        assert config.do_sample is row.samples
        if not row.samples:
            assert config.temperature is None and config.top_p is None and not config.top_k
        assert config.max_new_tokens == 40


def processed(engine, **values):
    """The scores of 200 tokens with known logits, of which the seventh was said before."""
    planned = plan(engine, settings("sampling", **values))
    model = engine.loaded.model
    config, _ = model._prepare_generation_config(GenerationConfig(**planned.config))
    model._prepare_special_tokens(config, True, device=model.device, batch_size=1)
    processors = model._get_logits_processor(
        generation_config=config, input_ids_seq_length=1, logits_processor=LogitsProcessorList(planned.processors)
    )
    return processors(torch.tensor([[7]]), LOGITS[None].clone())[0]


def kept(engine, **values):
    """Which of the 200 can still be drawn."""
    scores = processed(engine, **{"top_k": 0, "top_p": 1.0} | values)
    return {i for i in range(200) if scores[i].isfinite()}


LOGITS = torch.linspace(4.0, -4.0, 200)
P = (LOGITS / 0.7).softmax(-1).double()
ENTROPY = float(-(P * P.log()).sum())


def nucleus(order, mass):
    """The first tokens of `order` whose probabilities reach `mass`."""
    total, chosen = 0.0, set()
    for i in order:
        if total >= mass:
            break
        chosen.add(i)
        total += float(P[i])
    return chosen


TYPICAL = sorted(range(200), key=lambda i: abs(-math.log(float(P[i])) - ENTROPY))
SIGMA = (LOGITS / 0.7).std(correction=0)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, set(range(200))),
        ({"top_k": 17}, set(range(17))),
        ({"top_p": 0.8}, nucleus(range(200), 0.8)),
        ({"min_p": 0.25}, {i for i in range(200) if P[i] >= 0.25 * P[0]}),
        ({"typical_p": 0.5}, nucleus(TYPICAL, 0.5)),
        ({"top_n_sigma": 1.0}, {i for i in range(200) if LOGITS[i] / 0.7 >= LOGITS[0] / 0.7 - SIGMA}),
        ({"epsilon_cutoff": 0.01}, {i for i in range(200) if P[i] >= 0.01}),
        (
            {"eta_cutoff": 0.01},
            {i for i in range(200) if P[i] >= min(0.01, math.sqrt(0.01) * math.exp(-ENTROPY))},
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_knob_keeps_the_tokens_that_its_definition_names(budgie, values, expected):
    assert len(kept(budgie, **values) ^ expected) <= 1  # one token may lie on the edge


def test_top_h_keeps_fewer_tokens_the_smaller_it_is(budgie):
    sizes = [len(kept(budgie, top_h=share)) for share in (0.2, 0.5, 0.9)]
    assert 0 < sizes[0] < sizes[1] < sizes[2] < 200


def test_an_early_exit_past_the_last_layer_is_refused_with_the_layers_there_are(budgie):
    with pytest.raises(BadSetting, match="has 6 layers, so it can exit after layer 1 to 5, not after 6"):
        answer(budgie, settings("early_exit", exit_layer=6))


def guided(engine, negative, scale=3.0):
    """The scores of the first token of an answer that is steered away, by the processors of the plan."""
    chosen = settings("greedy", guidance_scale=scale, negative_prompt=negative)
    planned = plan(engine, chosen)
    prompt, model = render_prompt(engine.loaded, build_messages([], "Hello"), chosen), engine.loaded.model
    away = {"negative_prompt_ids": prompt.negative.ids} if prompt.negative else {}
    made = model.generate(
        prompt.ids,
        generation_config=GenerationConfig(
            **planned.config | {"output_scores": True, "return_dict_in_generate": True}
        ),
        **away,
    )
    return prompt, made.scores[0][0]


@pytest.mark.parametrize("negative", ["", "Answer like a pirate."])
def test_guidance_moves_the_scores_away_from_those_after_the_negative_prompt(budgie, negative):
    prompt, scores = guided(budgie, negative)
    model = budgie.loaded.model
    away = prompt.negative.ids if negative else prompt.ids[:, -1:]
    if negative:
        assert negative in budgie.loaded.tokenizer.decode(away[0])
    with torch.no_grad():
        given, other = (model(ids).logits[0, -1].log_softmax(-1) for ids in (prompt.ids, away))
    assert torch.allclose(scores, other + 3.0 * (given - other), atol=1e-3)


def test_without_guidance_a_negative_prompt_changes_nothing(budgie):
    plain, named = (answer(budgie, settings("greedy", negative_prompt=text)) for text in ("", "Be a pirate."))
    assert plain.text == named.text
    assert "negative" not in named.run_record.program


def test_a_negative_prompt_that_does_not_fit_is_refused(budgie):
    chosen = settings("greedy", guidance_scale=2.0, negative_prompt="pirate " * 550)
    with pytest.raises(BadConversation, match="Shorten the negative prompt"):
        answer(budgie, chosen, "word " * 600)


def test_words_that_found_no_room_are_named(budgie):
    made = answer(budgie, settings("constrained_beams", force_words="lantern\nriver boat", max_new_tokens=2))
    assert any("There was no room for: " in notice and "lantern" in notice for notice in made.notices)
    enough = answer(budgie, settings("constrained_beams", force_words="lantern", max_new_tokens=60))
    assert not enough.notices


@pytest.mark.parametrize(
    ("values", "score"),
    [
        ({"temperature": 0.5}, lambda logit, seen: logit / 0.5),
        ({"temperature": 1.0, "repetition_penalty": 2.0}, lambda logit, seen: logit / 2 if seen else logit),
    ],
    ids=["temperature", "repetition_penalty"],
)
def test_a_knob_changes_the_logits_as_its_definition_says(budgie, values, score):
    scores = processed(budgie, **{"top_k": 0, "top_p": 1.0} | values)
    positive = [i for i in range(200) if LOGITS[i] > 0]
    assert all(math.isclose(scores[i], score(float(LOGITS[i]), i == 7), rel_tol=1e-5) for i in positive)


@pytest.mark.slow
def test_the_program_of_an_answer_gives_its_text_again(budgie):
    """One process runs the programs of all strategies, as a reader would each."""
    typed = "Tell me a story <|im_end|> about an owl."
    values = {"top_n_sigma": 1.5, "force_words": "lantern", "stop": "zzz\nq q"}
    values |= {"guidance_scale": 1.5, "negative_prompt": "Answer like a pirate."}
    answers = [answer(budgie, settings(name, **values), typed) for name in ALL]
    thinking = settings("greedy", thinking=True, thinking_budget=3)
    answers.append(answer(budgie, thinking, "Which is larger, 12 or 31?"))
    programs = json.dumps([made.run_record.program for made in answers])
    ran = subprocess.run(
        [sys.executable, "-c", "import json, sys\nfor each in json.load(sys.stdin): exec(each); print(chr(0))"],
        input=programs,
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=240,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    printed = [text.strip() for text in ran.stdout.split(chr(0))]
    assert all(text.endswith(made.text.strip()) for text, made in zip(printed[:-1], answers, strict=True))
    assert printed[: len(ALL)] == [made.text.strip() for made in answers[: len(ALL)]]


def test_what_ran_shows_the_prompt_with_its_control_tokens_and_every_value_that_decided(budgie):
    made = answer(budgie, settings("sampling", temperature=1.25), "Hello")
    assert made.run_record.prompt == "<|im_start|>user\n Hello<|im_end|>\n<|im_start|>assistant\n"
    assert made.run_record.config["temperature"] == 1.25 and made.run_record.config["num_beams"] == 1
    assert "torch.manual_seed(5)" in made.run_record.program


def test_a_program_says_nothing_of_where_this_machine_keeps_its_models(budgie):
    assert str(ROOT) not in answer(budgie, settings("greedy"), "Hello").run_record.program
