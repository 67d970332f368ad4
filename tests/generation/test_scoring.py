"""The shown chain (logits, processors, draw) gives the token that was generated: replayed for each strategy."""

import pytest

pytest.importorskip("openvino")

from parley.engines.base import TurnRequest
from parley.messages import Message
from parley.settings import Settings
from tests.conftest import engine
from tests.engines.openvino.asking import answer
import threading

QUESTION = [Message("user", "Tell me a story about an owl.")]


@pytest.mark.parametrize(
    "strategy", ["greedy", "sampling", "prompt_lookup", "green_list", "synthid", "dola", "early_exit"]
)
@pytest.mark.parametrize("kind", ["floats", "transformers", "int8"])
def test_x(strategy, kind):
    eng = (
        engine(QUANTIZATION="none")
        if kind == "floats"
        else engine(QUANTIZATION="int8")
        if kind == "int8"
        else engine(QUANTIZATION="none", ENGINE="transformers")
    )
    values = {
        "strategy": strategy,
        "seed": 7,
        "max_new_tokens": 40,
        "temperature": 1.2,
        "top_k": 20,
        "top_p": 0.9,
        "repetition_penalty": 1.1,
        "watermark_key": 3,
    }
    made = answer(eng, QUESTION, **values)
    settings = Settings.check(values)
    scores = eng.scores(
        TurnRequest.of(QUESTION, settings, threading.Event(), generated=made.origin.prompt_ids), made.ids
    )
    assert [s.id for s in scores] == list(made.ids)
    for s in scores:
        by = max(s.candidates, key=lambda c: c.quotient if c.quotient is not None else c.after)
        assert by.id == s.id, (s.text, by)
    print(made.text, scores[3])
