"""A strategy is one row and one function: all of the app has it then."""

import sys
import threading
from types import ModuleType

import pytest
import torch

from parley.api import endpoints
from parley.engines.base import TurnRequest
from parley.events import Answer
from parley.messages import build_messages
from parley.settings import Settings
from parley.strategies import STRATEGIES, Strategy
from parley.ui import controls
from tools import readme_tables

TOKENS = 5


def second_best(model, input_ids, logits_processor, stopping_criteria, generation_config, on_token, **inputs):
    """Takes the second most likely token each time."""
    inputs.pop("synced_gpus", None)
    outputs = model._prefill(input_ids, generation_config, inputs)
    while True:
        inputs = model._update_model_kwargs_for_generation(outputs, inputs)
        scores = logits_processor(input_ids, outputs.logits[:, -1].float())
        token = scores.topk(2).indices[:, 1:]
        input_ids = torch.cat([input_ids, token], dim=-1)
        on_token(token)
        if stopping_criteria(input_ids, None).all():
            return input_ids
        outputs = model(**model.prepare_inputs_for_generation(input_ids, next_sequence_length=1, **inputs))


@pytest.fixture
def toy(monkeypatch):
    decoders = ModuleType("parley.strategies.decoders.toy")
    decoders.second_best = second_best
    monkeypatch.setitem(sys.modules, decoders.__name__, decoders)
    row = Strategy(
        name="second_best",
        label="Second best",
        group="Everyday",
        hint="never the most likely token",
        summary="Always takes the second most likely token.",
        when="For seeing how a strategy is added.",
        source="https://example.org/second-best",
        decoder="toy.second_best",
        events=("on_token",),
        cost=lambda values: 1.0,
    )
    monkeypatch.setitem(STRATEGIES, row.name, row)
    return row


def test_one_row_and_one_function_are_in_the_dropdown_the_list_for_programs_the_table_and_an_answer(toy, budgie):
    offered = dict(zip(controls.OPTIONS, controls.for_model("budgie"), strict=True))["strategy"]["choices"]
    assert (toy.label, toy.name) in offered
    listed = next(each for each in endpoints.list_strategies("budgie") if each["name"] == toy.name)
    assert listed["unavailable"] == "" and "max_new_tokens" in listed["settings"]
    assert toy.summary in readme_tables.strategies_table()

    def answer(strategy):
        settings = Settings.check({"strategy": strategy, "max_new_tokens": TOKENS})
        request = TurnRequest.of(build_messages([], "Hello!"), settings, threading.Event())
        return sum(budgie.stream(request), Answer())

    made = answer(toy.name)
    assert made.usage.new_tokens == TOKENS and made.text != answer("greedy").text
    assert "custom_generate=second_best" in made.run_record.program


@pytest.mark.parametrize(
    ("lacking", "sentence"),
    [
        ({"label": ""}, "lacks its name, label"),
        ({"group": "Toys"}, "no group"),
        ({"hint": "h" * 41}, "too long a hint"),
        ({"when": "To play."}, "a use without 'For'"),
        ({"decoder": "second_best"}, "names no decoder"),
        ({"events": ()}, "no events"),
        ({"requirements": ("a moon",)}, "unknown requirements"),
        ({"engines": ()}, "no engine"),
        ({"watermark": "watermarks.GreenList"}, "half a watermark"),
    ],
    ids=str,
)
def test_a_row_that_lacks_something_cannot_be_made(lacking, sentence):
    whole = {"name": "toy", "label": "Toy", "group": "Search", "hint": "a toy", "summary": "A.", "when": "For B."}
    whole |= {"source": "https://example.org", "decoder": "dola.dola", "events": ("on_token",), "cost": float}
    assert Strategy(**whole)
    with pytest.raises(ValueError, match=sentence):
        Strategy(**whole | lacking)


@pytest.mark.parametrize("row", STRATEGIES.values(), ids=lambda row: row.name)
def test_what_a_row_names_is_there(row):
    assert callable(row.decode())
    if row.watermark:
        assert row.mark(Settings.check({"strategy": row.name})).construct_processor
