"""What one byte a weight costs on a real model: next to nothing."""

import numpy as np
import pytest

pytest.importorskip("openvino")

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from parley.messages import Message
from parley.models.spec import ModelSpec
from tests.conftest import engine
from tests.engines.openvino.asking import answer

pytestmark = pytest.mark.slow
TEXT = (
    "The lighthouse stands on a rock at the mouth of the bay. It was built in 1834, when the harbour behind it was "
    "still one of the busiest on the coast, and for more than a century a keeper and his family lived in the small "
    "house at its foot. Every evening he climbed the hundred and twelve steps to the lantern room, trimmed the wicks "
    "and wound the clockwork that turned the lens. On clear nights the light could be seen from twenty miles away. "
    "Today it is run by a computer in another town, and the house is a museum that is open from May to October. "
    "Visitors can climb the tower, look at the old lens, and read the logbooks, in which the keepers wrote down the "
    "weather, the ships that passed, and now and then the birth of a child."
)
QUESTIONS = ["What is the capital of France?", "Write one sentence about the sea.", "What is 2 + 2?"]


@pytest.fixture(scope="module")
def small(real_model):
    made = engine(ModelSpec("real", str(real_model), "SmolLM2"), QUANTIZATION="int8")
    assert (made.loaded.plan.engine, made.loaded.plan.numbers) == ("openvino", "int8")
    return made


def likelihood(logits, ids):
    """The mean log probability, in nats a token, of all tokens but the first."""
    chances = logits[:-1].log_softmax(-1)
    return float(chances.gather(1, ids[1:, None]).mean())


def test_a_text_is_as_likely_as_with_floats(small, real_model):
    ids = AutoTokenizer.from_pretrained(real_model)(TEXT, return_tensors="pt").input_ids
    floats = AutoModelForCausalLM.from_pretrained(real_model, dtype=torch.float32)
    with torch.inference_mode():
        expected, ours = floats(ids).logits[0], small.loaded.model(ids).logits[0]
    away = likelihood(ours, ids[0]) - likelihood(expected, ids[0])
    assert away != 0 and abs(away) < 0.02
    assert -3.5 < likelihood(expected, ids[0]) < -1.5  # it is a model that knows English
    same = (ours.argmax(-1) == expected.argmax(-1)).float().mean()
    assert same > 0.9


@pytest.mark.parametrize("question", QUESTIONS)
def test_greedy_answers_are_finite_and_are_words(small, question, monkeypatch):
    decoder, run, made = small.loaded.model.decoder, small.loaded.model.decoder.run, []

    def watched(*args, **options):
        made.append(run(*args, **options))
        return made[-1]

    monkeypatch.setattr(decoder, "run", watched)
    said = answer(small, [Message("user", question)])
    assert all(np.isfinite(each.logits).all() and np.isfinite(each.hidden).all() for each in made)
    assert len(said.text.split()) > 3 and said.finish in ("end", "length")
    assert len(set(said.text.split())) > 3
