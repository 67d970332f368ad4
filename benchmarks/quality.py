"""What rounding the weights to int8 costs: the likelihood of text, the best tokens, and answers to questions."""

import functools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import torch

from benchmarks.measures import ENGLISH, Row, ask, question, rounded, row
from benchmarks.models import Model, Models, engine
from parley.engines.local_engine import LocalEngine
from parley.models import registry
from training import exam
from training.batches import encode, stack
from training.tokenizer import corpus, render

HELD_OUT = 2_000_000_000  # a seed of the corpus that no training reaches: they count up from small ones
DIALOGUES = 400
QUESTIONS = json.loads(Path(__file__).with_name("questions.json").read_text("utf-8"))
ANSWER = 40  # tokens of an answer to one of them
CHUNK = 128  # tokens whose distributions are compared at once


def budgie(**environ: str) -> LocalEngine:
    """Budgie as these variables have it loaded."""
    return engine(registry.find("budgie"), 0, **environ)


# Budgie as it is not loaded by itself: rounded, by each engine that may have to.
WAYS: dict[str, Callable[[], LocalEngine]] = {
    "openvino": functools.partial(budgie, ENGINE="openvino", QUANTIZATION="int8"),
    "transformers": functools.partial(budgie, ENGINE="transformers", QUANTIZATION="int8"),
}


def percent_right(engine: LocalEngine, asked: Sequence[exam.Question]) -> float:
    """Of the questions of the exam."""
    results = exam.sit(engine, asked)
    return 100 * sum(result.passed for result in results) / len(results)


@torch.inference_mode()
def log_likelihood(engine: LocalEngine, dialogues: int) -> float:
    """The mean over the tokens of the answers in so many dialogues that Budgie was not trained on, in nats."""
    tokenizer = engine.loaded.tokenizer
    found, count = 0.0, 0
    for one in encode(tokenizer, [render(c) for c in islice(corpus(HELD_OUT), dialogues)]):
        batch = stack([one], tokenizer.pad_token_id)
        wanted = batch.answers[0, 1:]
        likely = engine.loaded.model(batch.ids[:, :-1]).logits[0, wanted].float().log_softmax(-1)
        found += float(likely.gather(1, batch.ids[0, 1:][wanted, None]).sum())
        count += int(wanted.sum())
    return found / count


def of_budgie(models: Models, dialogues: int = DIALOGUES) -> Iterator[Row]:
    """Each of `WAYS` beside 32-bit floats, as Budgie is loaded."""
    floats, every = models.budgie.engine, max(1, DIALOGUES // dialogues)
    asked = exam.questions()[::every]
    base = percent_right(floats, asked), log_likelihood(floats, dialogues)
    for name, way in WAYS.items():
        rough = way()
        yield row(f"exam_{name}", models.budgie.name, "% right", [(percent_right(rough, asked), base[0])])
        yield row(f"loglik_{name}", models.budgie.name, "nats/token", [(log_likelihood(rough, dialogues), base[1])])


def of_smollm2(models: Models, text: str = ENGLISH, questions: Sequence[dict] = QUESTIONS) -> Iterator[Row]:
    """The real model in int8 beside 32-bit floats, both by OpenVINO, whose floats are those of transformers."""
    model = models.smollm2
    ways = [engine(model.row, ENGINE="openvino", QUANTIZATION=name) for name in ("int8", "none")]
    yield from _on_text(model, ways[0], ways[1], text)
    right = [100 * sum(map(functools.partial(is_right, each), questions)) / len(questions) for each in ways]
    yield row("questions_int8", model.name, "% right", [(right[0], right[1])])


@torch.inference_mode()
def _on_text(model: Model, rough: LocalEngine, exact: LocalEngine, text: str) -> Iterator[Row]:
    ids = exact.loaded.tokenizer.encode(text, add_special_tokens=False, return_tensors="pt")
    ours, theirs = (each.loaded.model(ids[:, :-1]).logits[0] for each in (rough, exact))
    sums = torch.zeros(4, dtype=torch.float64)
    for begin in range(0, len(ours), CHUNK):
        p, q = (logits[begin : begin + CHUNK].double().log_softmax(-1) for logits in (ours, theirs))
        wanted = ids[0, 1 + begin : 1 + begin + len(p), None]
        same = (p.argmax(-1) == q.argmax(-1)).sum()
        apart = (q.exp() * (q - p)).sum()  # of the rounded distribution from the exact one
        sums += torch.stack([p.gather(1, wanted).sum(), q.gather(1, wanted).sum(), apart, same])
    likely, exactly, divergence, same = (sums / len(ours)).tolist()
    yield row("text_loglik_int8", model.name, "nats/token", [(likely, exactly)])
    yield Row("text_kl_int8", model.name, "nats/token", rounded(divergence))
    yield Row("text_best_token_int8", model.name, "% the same", rounded(100 * same))


def is_right(engine: LocalEngine, asked: dict) -> bool:
    """Whether the answer has one of the accepted words."""
    text = ask(engine, question(asked["question"]), ANSWER).text
    return any(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) for word in asked["accepted"])
