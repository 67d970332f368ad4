"""Each kind of positions on both sides of its switch: the tokens of `generate`, as few rows, a prefix that is kept."""

import dataclasses
import random
import threading

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from parley.engines.base import TurnRequest
from parley.engines.transformers.engine import TransformersEngine
from parley.errors import BadSetting
from parley.events import Answer
from parley.generation.prefix_cache import SNAPSHOT_MARGIN, LeaseRequest
from parley.generation.prompt import render_prompt
from parley.messages import build_plain_text
from parley.models import registry
from parley.positions import REREAD, ropes
from parley.settings import Settings
from parley.strategies import STRATEGIES
from tests.conftest import draft, engine
from tests.standins.hub import save_tiny_model
from tests.standins.positions import CASES, CONTEXT, FIRST, PHI, QUICK, config_of, rope
from tests.strategies.loops import SPECULATIVE

WORDS = (
    "owl",
    "window",
    "slow",
    "story",
    "small",
    "green",
    "bird",
    "water",
    "the",
    "of",
    "and",
    "under",
)  # a token each


class Rows:
    """Counts the tokens that a model reads while it is entered, for each sequence."""

    def __init__(self, model):
        self.model = model

    def __enter__(self):
        self.read = 0
        self.hook = self.model.register_forward_pre_hook(self._count, with_kwargs=True)
        return self

    def _count(self, module, positional, named):
        self.read += (named["input_ids"] if "input_ids" in named else positional[0]).shape[1]

    def __exit__(self, *_):
        self.hook.remove()


def make(torch_budgie, case):
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config_of(case), dtype=torch.float32).eval()
    model.generation_config = GenerationConfig(eos_token_id=None, pad_token_id=0)
    loaded = dataclasses.replace(torch_budgie.loaded, model=model, context=CONTEXT, layers=2)
    return TransformersEngine(loaded)


@pytest.fixture(
    scope="module", params=[case if case in QUICK else pytest.param(case, marks=pytest.mark.slow) for case in CASES]
)
def each(torch_budgie, request):
    return make(torch_budgie, request.param)


@pytest.fixture(scope="module")
def phi3(torch_budgie):
    return make(torch_budgie, "phi3")


def text(engine, length):
    """A text of exactly so many tokens."""
    chance, made = random.Random(length), ""
    while len(engine.loaded.tokenizer.encode(made)) < length:
        made += f" {chance.choice(WORDS)}"
    assert len(engine.loaded.tokenizer.encode(made)) == length
    return made


def go_on(engine, written, session="", **values):
    """The answer to a plain text, the tokens of both, and the rows that were read for it."""
    chosen = Settings.check({"strategy": "greedy", "mode": "plain text", "max_new_tokens": 30, "seed": 7} | values)
    messages = build_plain_text([], written)
    with Rows(engine.loaded.model) as rows:
        request = TurnRequest.of(messages, chosen, threading.Event(), draft("transformers"), session)
        answer = Answer.of(engine.stream(request))
    return answer, rows.read


def generated(engine, written, new=30, **values):
    """The tokens of `generate`, prompt and answer, and the rows that it reads."""
    ids = render_prompt(engine.loaded, build_plain_text([], written), Settings.check({"mode": "plain text"})).ids
    given = {"attention_mask": torch.ones_like(ids), "max_new_tokens": new, "do_sample": False}
    with Rows(engine.loaded.model) as rows, torch.inference_mode():
        return engine.loaded.model.generate(ids, **given, **values)[0].tolist(), rows.read


@pytest.mark.parametrize("length", [40, FIRST - 10, FIRST, FIRST + 1, 130])
def test_the_tokens_are_those_of_generate_and_no_more_rows_are_read(each, length):
    written, session = text(each, length), f"read {length}"
    tokens, rows = generated(each, written)
    first, read = go_on(each, written, session)
    assert list(each.prefix_cache.sequence(session)) == tokens
    assert read <= rows + first.usage.drafted  # a draft token is one row more
    again, read = go_on(each, written, session)
    assert again.text == first.text and list(each.prefix_cache.sequence(session)) == tokens
    assert read <= rows + again.usage.drafted


def gone_on(engine, session, new=30):
    """How many tokens a session has for a further turn, which must give the tokens of a cold one and read the rest."""
    prompt, answer = [*engine.prefix_cache.sequence(session), 300, 301, 302], []
    ids = torch.tensor([prompt])
    given = {"attention_mask": torch.ones_like(ids), "max_new_tokens": new, "do_sample": False}
    with torch.inference_mode():
        with Rows(engine.loaded.model) as cold:
            expected = engine.loaded.model.generate(ids, **given)[0].tolist()
        request = LeaseRequest(session, prompt, 1, len(prompt) + new, lambda: answer)
        with Rows(engine.loaded.model) as rows, engine.prefix_cache.acquire(request) as lease:
            answer += engine.loaded.model.generate(ids, **given, **lease.arguments)[0, len(prompt) :].tolist()
    assert [*prompt, *answer] == expected
    assert rows.read == cold.read - lease.cached_tokens
    return lease.cached_tokens


@pytest.mark.parametrize("length", [40, FIRST - 10, 130])
def test_the_next_turn_is_a_cold_one_that_reads_less(each, length):
    """From one side of the switch to the other, turn by turn."""
    session = f"next {length}"
    go_on(each, text(each, length), session)
    kept = 0
    for _ in range(3):
        before = len(each.prefix_cache.sequence(session))
        # Where a window slides, the prompt of the turn before is kept, without its last tokens.
        kept += gone_on(each, session) >= before - 33 - SNAPSHOT_MARGIN
    assert kept == (2 if length < FIRST and mixes(each.loaded.model.config) else 3)


def mixes(config):
    """Whether a turn that passes the switch leaves keys of both sides, so that the next one reads all again."""
    return config.model_type not in REREAD and any(rope["rope_type"] == "longrope" for rope in ropes(config))


def test_beams_are_those_of_generate_on_both_sides(each):
    for length in (40, FIRST - 10, FIRST + 1, 130):
        tokens, _ = generated(each, text(each, length), num_beams=3)
        for _ in range(2):  # the second time with a prefix that is kept
            go_on(each, text(each, length), "beams", strategy="beams", num_beams=3)
            assert list(each.prefix_cache.sequence("beams")) == tokens


DRAFTING = [*SPECULATIVE, "contrastive"]
FAST = {("phi3", "prompt_lookup"), ("phi3", "contrastive")}
PAIRS = [(case, name) for case in ("phi3", "llama, longrope") for name in DRAFTING]


@pytest.mark.parametrize(
    ("case", "name"), [pair if pair in FAST else pytest.param(*pair, marks=pytest.mark.slow) for pair in PAIRS]
)
def test_what_must_equal_greedy_search_does_so_across_the_switch(torch_budgie, case, name):
    engine = make(torch_budgie, case)
    values = {"exit_layer": 1} if name == "early_exit" else {"penalty_alpha": 0.0} if name == "contrastive" else {}
    for length in (FIRST - 10, FIRST - 1, FIRST, FIRST + 1):
        written = text(engine, length)
        tokens, _ = generated(engine, written, new=30)
        greedy, _ = go_on(engine, written, "greedy", max_new_tokens=30)
        assert list(engine.prefix_cache.sequence("greedy")) == tokens
        for session in ("", "drafts", "drafts"):
            answer, _ = go_on(engine, written, session, strategy=name, max_new_tokens=30, temperature=1.0, **values)
            assert answer.text == greedy.text and answer.usage.new_tokens == 30


@pytest.mark.parametrize(
    "name", [n for n, row in STRATEGIES.items() if n not in SPECULATIVE and not row.needs_full_prefill]
)
def test_every_strategy_gives_the_same_with_a_kept_prefix_across_the_switch(phi3, name):
    for length in (FIRST - 10, FIRST, 130):
        written, values = text(phi3, length), {"strategy": name, "force_words": "lantern", "temperature": 1.0}
        go_on(phi3, written, name, max_new_tokens=1)
        kept, _ = go_on(phi3, written, name, **values)
        assert kept.usage.cached_tokens > 0 and kept.text == go_on(phi3, written, **values)[0].text


def test_the_public_case_reads_217_tokens_and_keeps_its_prefix(phi3):
    written = text(phi3, 32)
    answer, read = go_on(phi3, written, "public", max_new_tokens=90)
    assert read - answer.usage.drafted <= generated(phi3, written, new=90)[1] == 217
    assert gone_on(phi3, "public", new=1) == 121


def test_where_generate_loses_the_text_at_the_switch_it_is_read_again(torch_budgie, monkeypatch):
    """Phi-4 multimodal drops its cache but goes on with one token. Compared with the model without a cache."""
    tower = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2}
    vision = tower | {"num_hidden_layers": 1, "image_size": 28, "patch_size": 14, "crop_size": 28}
    audio = tower | {"num_blocks": 1, "ext_pw_out_channel": 32, "nemo_conv_channels": 32}
    towers = {"vision_config": vision, "audio_config": audio | {"depthwise_separable_out_channel": 32}}
    monkeypatch.setitem(CASES, "phi4_multimodal", rope("longrope") | PHI | towers)
    engine = make(torch_budgie, "phi4_multimodal")
    _, read = go_on(engine, text(engine, FIRST - 10), "a", max_new_tokens=40)
    tokens = list(engine.prefix_cache.sequence("a"))
    for end in range(FIRST - 10, len(tokens)):
        logits = engine.loaded.model(input_ids=torch.tensor([tokens[:end]]), use_cache=False).logits
        assert int(logits[0, -1].argmax()) == tokens[end]
    assert read == FIRST + len(tokens) - 1  # the first window is read twice
    assert gone_on(engine, "a") == len(tokens) - 1


def test_a_prefix_of_the_other_side_is_not_used(phi3):
    long, short = text(phi3, 130), text(phi3, 40)
    for written, kept in ((long, False), (short, False), (short, True), (long, False), (long, True)):
        answer, _ = go_on(phi3, written, "sides", max_new_tokens=4)
        assert bool(answer.usage.cached_tokens) == kept
        assert answer.text == go_on(phi3, written, max_new_tokens=4)[0].text


def test_guidance_across_the_switch_is_refused_in_one_sentence(phi3):
    written = text(phi3, FIRST - 10)
    with pytest.raises(BadSetting, match="Set guidance_scale to 1, or max_new_tokens to 96 at most"):
        go_on(phi3, written, guidance_scale=2.0, max_new_tokens=120)
    assert go_on(phi3, written, guidance_scale=2.0, max_new_tokens=FIRST)[0].usage.new_tokens == FIRST


def test_a_folder_with_longrope_is_loaded_by_the_engine_that_serves_it(tmp_path):
    folder = save_tiny_model(tmp_path / "long", "Phi3", **rope("longrope"), **PHI)
    made = engine(registry.find("", {"MODEL_IDS": str(folder)}))
    assert made.loaded.plan.engine == "transformers"
    assert go_on(made, text(made, FIRST - 10))[0].usage.new_tokens > 0
