"""What rounding costs: Budgie's exam and the likelihood of held-out dialogues, for each way of running it on a CPU."""

import dataclasses
import functools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from unittest import mock

import torch

from benchmarks.measures import Row, row
from parley import catalog
from parley.budgie import WEIGHTS, exam
from parley.budgie.batches import encode, stack
from parley.budgie.tokenizer import corpus, render
from parley.engines import openvino_export, paired
from parley.engines.loading import load
from parley.engines.local import LocalEngine

HELD_OUT = 2_000_000_000  # a seed of the corpus that no training reaches: they count up from small ones
DIALOGUES = 400


def as_planned(quantization: str) -> LocalEngine:
    """Budgie as `QUANTIZATION` has it loaded."""
    with mock.patch.dict(os.environ, QUANTIZATION=quantization):
        return LocalEngine(load(catalog.find("budgie"), lambda _: None, threading.Event()))


def in_bfloat16() -> LocalEngine:
    """Budgie as it is stored, which is how models are loaded that do not fit in floats."""
    loaded = as_planned("none").loaded
    return LocalEngine(dataclasses.replace(loaded, model=loaded.model.bfloat16()))


def by_openvino() -> LocalEngine:
    """Budgie as OpenVINO exports it."""
    from parley.engines.openvino import OpenVinoEngine

    folder = openvino_export.export(WEIGHTS, lambda _: None, threading.Event())
    return OpenVinoEngine(as_planned("none").loaded, folder)


WAYS: dict[str, Callable[[], LocalEngine]] = {
    "bf16": in_bfloat16,
    "int8": functools.partial(as_planned, "int8"),
    "openvino": by_openvino,
}


def percent_right(engine: LocalEngine, asked: Sequence[exam.Question]) -> float:
    """Of the questions of the exam."""
    results = exam.sit(engine, asked)
    return 100 * sum(result.passed for result in results) / len(results)


@torch.inference_mode()
def log_likelihood(engine: LocalEngine, dialogues: int) -> float:
    """The mean over the tokens of the answers in so many dialogues that Budgie was not trained on, in nats."""
    tokenizer = engine.loaded.tokenizer
    logits = getattr(engine, "logits", lambda ids: engine.loaded.model(ids).logits)
    found, count = 0.0, 0
    for one in encode(tokenizer, [render(c) for c in islice(corpus(HELD_OUT), dialogues)]):
        batch = stack([one], tokenizer.pad_token_id)
        wanted = batch.answers[0, 1:]
        likely = logits(batch.ids[:, :-1])[0, wanted].float().log_softmax(-1)
        found += float(likely.gather(1, batch.ids[0, 1:][wanted, None]).sum())
        count += int(wanted.sum())
    return found / count


def rows(quick: bool) -> Iterator[Row]:
    """Each way beside 32-bit floats."""
    floats = as_planned("none")
    dialogues = DIALOGUES // 20 if quick else DIALOGUES
    asked = exam.questions()[:: 20 if quick else 1]
    base = percent_right(floats, asked), log_likelihood(floats, dialogues)
    for name, way in WAYS.items():
        if name == "openvino" and (quick or paired.missing()):
            continue
        engine = way()
        yield row(f"exam_{name}", "Budgie", "% right", [(percent_right(engine, asked), base[0])])
        yield row(f"loglik_{name}", "Budgie", "nats/token", [(log_likelihood(engine, dialogues), base[1])])
