"""Samplers, penalties and forms of several turns at once: what one of them draws or keeps belongs to its own turn."""

import functools
import gc
import json

import pytest

pytest.importorskip("openvino")

from parley.strategies.processors.answer_form import AnswerForm
from parley.strategies.processors.samplers.banned_words import BannedWords
from parley.strategies.processors.samplers.dry import Dry
from tests.conftest import engine, until
from tests.engines.company import Company
from tests.schemas import check_object
from tests.strategies.processors.test_answer_form import SCHEMA

WIDE = {"strategy": "sampling", "temperature": 1.1, "top_k": 0, "top_p": 1.0, "max_new_tokens": 40}
FORM = {"answer_form": "json_schema", "answer_pattern": json.dumps(SCHEMA), "max_new_tokens": 90}
XTC = {"xtc_probability": 0.6, "xtc_threshold": 0.05}
MIROSTAT = {"mirostat_tau": 3.0, "mirostat_eta": 0.3}
TURNS = {  # of one seed each, and two of those that draw or keep something
    "dry": WIDE | {"dry_multiplier": 1.5, "temperature": 0.3, "max_new_tokens": 60},
    "xtc": WIDE | XTC,
    "xtc, other seed": WIDE | XTC,
    "presence": WIDE | {"presence_penalty": 1.5, "top_k": 30},
    "frequency": WIDE | {"frequency_penalty": 1.0},
    "bias": WIDE | {"logit_bias": '{" owl": 6, " lamp": -20}'},
    "banned": WIDE | {"bad_words": "owl\nthe\nlamp"},
    "at least": WIDE | {"min_new_tokens": 40},
    "mirostat": WIDE | MIROSTAT,
    "mirostat, other seed": WIDE | MIROSTAT,
    "dynamic temperature": WIDE | {"dynatemp_range": 0.8, "dynatemp_exponent": 0.7},
    "form": WIDE | FORM,
    "form, greedy": FORM | {"strategy": "greedy"},
    "form, beams": FORM | {"strategy": "beams"},
    "all": WIDE | FORM | XTC | {"dry_multiplier": 1.0, "dynatemp_range": 0.4, "bad_words": "sea", "top_k": 40},
}
FORMED = ["all", *(name for name in TURNS if name.startswith("form"))]


@functools.cache
def own():
    """A Budgie of these tests."""
    return engine()


def forget():
    """Drops what is kept of the turns, so that those in company begin as those alone did."""
    until(lambda: not own().prefix_cache.is_reading)
    own().prefix_cache.clear()


@pytest.mark.slow
def test_each_sampler_penalty_and_form_answers_in_company_as_it_does_alone():
    company = Company(own)
    turns = [(number, values | {"seed": 11 + number}) for number, values in enumerate(TURNS.values())]
    alone = [company.ask(turn) for turn in turns]
    forget()
    decoder = own().loaded.model.decoder
    before = decoder.num_passes
    made = company.together(turns)
    assert dict(zip(TURNS, made, strict=True)) == dict(zip(TURNS, alone, strict=True))
    assert decoder.num_passes - before < sum(tokens for _, tokens, _ in alone) / 2  # they shared passes
    said = {name: text for name, (text, *_) in zip(TURNS, made, strict=True)}
    assert all(check_object(SCHEMA, json.loads(said[name])) for name in FORMED)
    assert " lamp" not in said["bias"] and not any(word in said["banned"].lower() for word in ("owl", "the", "lamp"))


@pytest.mark.parametrize("name", ["xtc", "mirostat"])
def test_turns_of_one_sampler_and_one_prompt_differ_by_their_seed_alone(name):
    """What is drawn, and the limit that Mirostat keeps, are those of one turn, although all have the same tokens."""
    company = Company(own)
    turns = [(0, TURNS[name] | {"seed": seed, "min_new_tokens": 24}) for seed in (1, 2, 3, 1, 2, 3)]
    alone = [company.ask(turn) for turn in turns[:3]]
    forget()
    made = company.together(turns)
    assert made == alone + alone
    assert len({text for text, *_ in made}) == 3


@pytest.mark.slow
def test_nothing_is_kept_of_a_turn_that_is_over():
    """A processor knows the text of its turn, and a form many states of its grammar."""
    kinds, company = (AnswerForm, BannedWords, Dry), Company(own)

    def alive():
        gc.collect()
        return {id(each) for each in gc.get_objects() if type(each) in kinds}

    before = alive()
    company.ask((0, TURNS["all"]))
    until(lambda: alive() <= before)
