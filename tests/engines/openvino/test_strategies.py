"""Each strategy gives on the graph the text that it gives on PyTorch's model, with equal settings and seeds."""

import threading
import weakref

import psutil
import pytest

pytest.importorskip("openvino")

from parley.engines.openvino.decoder import Decoder
from parley.events import Answer
from parley.models import registry
from parley.models.load_plan import openvino_bytes
from parley.strategies import STRATEGIES
from tests.conftest import Passes, draft, engine
from tests.engines.openvino.asking import LONG, SHORT, answer, deltas

FLAT = {"strategy": "sampling", "temperature": 1.2, "top_k": 0, "top_p": 1.0}
AWAY = {"guidance_scale": 2.0, "negative_prompt": "Answer like a pirate. " * 8}
CASES = {
    "greedy": {},
    "greedy, penalties": {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2},
    "greedy, thinking budget": {"thinking": True, "thinking_budget": 4},
    "greedy, guidance": {"guidance_scale": 2.0},
    "greedy, guidance, negative prompt": AWAY,
    "sampling": {"strategy": "sampling"},
    "sampling, all tokens": FLAT,
    "sampling, all at once": FLAT | {"top_k": 40, "top_p": 0.95, "min_p": 0.02, "top_h": 0.8, "top_n_sigma": 2.0},
    "sampling, guidance": FLAT | {"guidance_scale": 1.5},
    "sampling, guidance, negative prompt": FLAT | AWAY | {"top_k": 20, "repetition_penalty": 1.2},
    "beams": {"strategy": "beams"},
    "beams, many": {"strategy": "beams", "num_beams": 8, "length_penalty": 0.5},
    "beam_sampling": {"strategy": "beam_sampling", "temperature": 1.2, "top_k": 20},
    "diverse_beams": {"strategy": "diverse_beams"},
    "diverse_beams, many": {"strategy": "diverse_beams", "beam_groups": 4, "beams_per_group": 2},
    "constrained_beams": {"strategy": "constrained_beams", "force_words": "lantern\nriver boat"},
    "contrastive": {"strategy": "contrastive"},
    "contrastive, many": {"strategy": "contrastive", "candidates": 9, "penalty_alpha": 0.4},
    "dola": {"strategy": "dola", "dola_layers": "low"},
    "dola, high": {"strategy": "dola", "dola_layers": "high", "repetition_penalty": 1.2},
    "assisted": {"strategy": "assisted"},
    "assisted, one": {"strategy": "assisted", "draft_tokens": 1},
    "speculative_sampling": {"strategy": "speculative_sampling", "temperature": 1.1},
    "universal_assisted": {"strategy": "universal_assisted", "draft_tokens": 8},
    "prompt_lookup": {"strategy": "prompt_lookup", "draft_tokens": 9},
    "early_exit": {"strategy": "early_exit", "exit_layer": 5},
    "early_exit, at once": {"strategy": "early_exit", "exit_layer": 1, "draft_tokens": 11},
    "green_list": {"strategy": "green_list"},
    "green_list, key": {"strategy": "green_list", "watermark_key": 7, "watermark_bias": 8.0, "top_k": 0},
    "synthid": {"strategy": "synthid"},
    "synthid, key": {"strategy": "synthid", "watermark_key": 7, "temperature": 1.2, "top_k": 0, "top_p": 1.0},
}
VARIANTS = {name for name in CASES if "," in name and "guidance" not in name}  # of what another case shows


def test_each_strategy_has_a_case():
    assert {values.get("strategy", "greedy") for values in CASES.values()} == set(STRATEGIES)


@pytest.mark.slow
@pytest.mark.parametrize("case", [pytest.param(n, marks=pytest.mark.slow) if n in VARIANTS else n for n in CASES])
def test_the_text_is_that_of_the_torch_model(budgie, torch_budgie, case):
    assert (budgie.loaded.plan.engine, torch_budgie.loaded.plan.engine) == ("openvino", "transformers")
    values = CASES[case]
    for messages in (SHORT,) if "," in case else (SHORT, LONG):
        ours = answer(budgie, messages, **values)
        theirs = answer(torch_budgie, messages, helper=draft("transformers"), **values)
        assert ours.text == theirs.text
        assert (ours.thought, ours.finish, ours.seed, ours.notices) == (
            theirs.thought,
            theirs.finish,
            theirs.seed,
            theirs.notices,
        )
        assert ours.usage.new_tokens == theirs.usage.new_tokens > 4
        assert [beam.text for beam in ours.beams] == [beam.text for beam in theirs.beams]
        assert [beam.score for beam in ours.beams] == pytest.approx([beam.score for beam in theirs.beams], rel=1e-4)


@pytest.mark.parametrize("strategy", ["assisted", "universal_assisted"])
def test_a_graph_and_a_torch_model_draft_for_each_other(budgie, torch_budgie, strategy):
    made = {
        (main.loaded.plan.engine, name): answer(main, SHORT, helper=draft(name), strategy=strategy)
        for main in (budgie, torch_budgie)
        for name in ("openvino", "transformers")
    }
    assert len(made) == 4
    assert {each.text for each in made.values()} == {answer(budgie, SHORT).text}
    # Equal drafts, and as many of them right.
    assert len({(each.usage.drafted, each.usage.accepted) for each in made.values()}) == 1
    assert all(each.usage.accepted > 5 for each in made.values())


def passes_after_the_first_token(engine, **values):
    """How many passes an answer takes after its first token, and how many tokens it has after it."""
    passes, tokens = [], []
    for most in (1, 16):
        with Passes(engine.loaded.model) as counted:
            made = answer(engine, SHORT, max_new_tokens=most, **values)
        passes.append(counted.count)
        tokens.append(made.usage.new_tokens)
    assert tokens[0] == 1 and tokens[1] > 4
    return passes[1] - passes[0], tokens[1] - 1


@pytest.mark.parametrize("strategy", ["greedy", "sampling"])
@pytest.mark.parametrize("negative", ["", "Answer like a pirate."])
def test_guidance_takes_one_pass_a_token_after_the_two_prompts(budgie, strategy, negative):
    values = {"strategy": strategy, "guidance_scale": 2.0, "negative_prompt": negative}
    passes, tokens = passes_after_the_first_token(budgie, **values)
    assert passes == tokens


def test_the_last_hidden_states_of_contrastive_search_cost_no_further_pass(budgie):
    passes, tokens = passes_after_the_first_token(budgie, strategy="contrastive", candidates=6)
    assert passes == tokens  # each token once, as a candidate


@pytest.mark.parametrize("which", ["low", "high"])
def test_the_layers_of_dola_cost_no_further_pass(budgie, which):
    passes, tokens = passes_after_the_first_token(budgie, strategy="dola", dola_layers=which)
    assert passes == tokens


@pytest.fixture
def own():
    """A Budgie of the test's own."""
    return engine()


@pytest.mark.slow
def test_the_exit_changes_ten_times_and_one_cut_graph_is_kept_and_counted(own):
    model, plain = own.loaded.model, own.memory_bytes
    exits, counted, resident = [], {}, []
    for layer in (2, *(1, 2) * 5):  # the first sets up what is set up once
        said = list(deltas(own, SHORT, strategy="early_exit", exit_layer=layer, max_new_tokens=8))
        told = [delta.status for delta in said if delta.status]
        assert told and all(status.startswith(f"Preparing the first {layer} layers: ") for status in told)
        assert sum(said, Answer()).usage.drafted > 0
        again = deltas(own, SHORT, strategy="early_exit", exit_layer=layer, max_new_tokens=8)
        assert not any(delta.status for delta in again)  # it is there already
        assert own.memory_bytes - plain == openvino_bytes(model.exit.weight_bytes, model.exit.num_layers)
        assert counted.setdefault(layer, own.memory_bytes) == own.memory_bytes
        exits.append(weakref.ref(model.exit))
        assert [each() is not None for each in exits] == [False] * (len(exits) - 1) + [True]
        resident.append(psutil.Process().memory_info().rss)
    assert plain < counted[1] < counted[2]
    assert resident[-1] - resident[2] < 2 * (counted[2] - plain)  # eight graphs were made between them


def test_a_cut_graph_reads_the_cache_of_the_whole_one(own):
    decoder = own.loaded.model.decoder
    free = decoder.pool.num_free
    answer(own, SHORT, strategy="early_exit", exit_layer=3)
    cut = own.loaded.model.exit
    assert isinstance(cut, Decoder) and cut.pool is decoder.pool and cut.num_passes > 0
    assert decoder.pool.num_free == free


def test_a_stop_while_the_cut_graph_is_made_leaves_none_and_the_next_turn_makes_it(own):
    cancel = threading.Event()
    made = Answer()
    for delta in deltas(own, SHORT, cancel, strategy="early_exit", exit_layer=4):
        if delta.status.startswith("Preparing"):
            cancel.set()
        made += delta
    assert (made.finish, made.usage.new_tokens, own.loaded.model.exit) == ("stopped", 0, None)
    told = answer(own, SHORT, strategy="early_exit", exit_layer=4)
    assert told.usage.accepted > 0 and told.text == answer(own, SHORT).text


@pytest.mark.slow
def test_a_quantised_pair_drafts_what_greedy_search_says():
    small = engine(QUANTIZATION="int8")
    drafter = engine(registry.DRAFT, QUANTIZATION="int8")
    plain = answer(small, LONG)
    for strategy in ("assisted", "universal_assisted", "prompt_lookup", "early_exit"):
        drafted = answer(small, LONG, helper=drafter, strategy=strategy, exit_layer=5)
        assert drafted.text == plain.text and drafted.usage.accepted > 0
