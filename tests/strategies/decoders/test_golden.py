"""Our decoding loops give the tokens of transformers 4.49.0, the last version with these strategies built in.

golden/golden.json was recorded with that version by golden/record.py, with Budgie's weights of today. The engines
of a CPU, OpenVINO's graph and PyTorch's model, hold it alike.
"""

import json
from pathlib import Path

import pytest
import torch
from transformers import LogitsProcessorList

from parley.strategies.decoders.constrained_beams import constrained_beams
from parley.strategies.decoders.contrastive import contrastive
from parley.strategies.decoders.diverse_beams import diverse_beams
from parley.strategies.decoders.dola import dola
from parley.strategies.decoders.observed_beam_search import observed_beam_search
from parley.strategies.processors.repetition_penalty import RepetitionPenalty
from tests.strategies.decoders.golden.record import TOKENS

GOLDEN = json.loads(Path(__file__).with_name("golden").joinpath("golden.json").read_text())
OURS = {"top_k": "candidates", "num_beam_groups": "beam_groups"}  # what 4.49 called these
LOOPS = {"contrastive": contrastive, "dola": dola, "diverse": diverse_beams, "constrained": constrained_beams}
LOOPS["beams"] = observed_beam_search


def nothing(_):
    """Takes what a loop reports."""


def arguments(name, case, tokenizer):
    """The case as our loop takes it."""
    values = {OURS.get(key, key): value for key, value in case.items()}
    if penalty := values.pop("repetition_penalty", None):
        values["logits_processor"] = LogitsProcessorList([RepetitionPenalty(penalty, [tokenizer.eos_token_id])])
    if words := values.pop("words", None):
        values["phrases"] = [tuple(tokenizer.encode(word, add_special_tokens=False)) for word in words]
    loop = LOOPS.get(name.split()[0].rstrip(","))
    if loop is None:
        return values
    listener = "on_token" if loop in (contrastive, dola) else "on_beams"
    return values | {"custom_generate": loop, listener: nothing}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["budgie", pytest.param("torch_budgie", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if "," in n else n for n in GOLDEN["cases"]])
def test_the_tokens_are_those_of_the_version_that_had_it_built_in(name, engine, request):
    loaded = request.getfixturevalue(engine).loaded
    model, tokenizer = loaded.model, loaded.tokenizer
    ends = {tokenizer.eos_token_id, tokenizer.pad_token_id}
    chosen = arguments(name, GOLDEN["cases"][name], tokenizer)
    for prompt, expected in zip(GOLDEN["prompts"], GOLDEN["answers"][name], strict=True):
        ids = torch.tensor([prompt])
        made = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=TOKENS, **chosen)
        answers = [
            [token for token in each if token not in ends] for each in (made[0, len(prompt) :].tolist(), expected)
        ]
        assert answers[0] == answers[1], tokenizer.decode(prompt)


def test_there_are_enough_prompts_and_settings_to_mean_something():
    assert len(GOLDEN["prompts"]) >= 20
    for loop in LOOPS:
        assert sum(name.startswith(loop) for name in GOLDEN["cases"]) >= 2
