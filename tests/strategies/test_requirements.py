"""A strategy that a model cannot run is refused with one sentence, wherever it is asked for; all others answer."""

import itertools
import threading
from pathlib import Path

import pytest
import transformers
from gradio_client import Client
from gradio_client.exceptions import AppError
from playwright.sync_api import expect
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers.models.auto.configuration_auto import model_type_to_module_name
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from parley.engines.base import TurnRequest
from parley.errors import BadSetting, ModelUnavailable
from parley.events import Answer
from parley.messages import build_messages
from parley.models import registry
from parley.models.spec import ModelSpec
from parley.serving import preload
from parley.settings import Settings
from parley.strategies import STRATEGIES
from parley.strategies.requirements import STATEFUL, ModelTraits
from tests.conftest import draft, engine
from tests.standins.hub import save_tiny_model
from tests.strategies.loops import SPECULATIVE

pytest_plugins = ["tests.browser"]

LINEAR = {"head_dim": 16, "linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 8}
LINEAR |= {"linear_value_head_dim": 8, "num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16}
KINDS = {  # what a model may remember the text with: a window, a convolution, a state, a mixture
    "Mistral": {"sliding_window": 8, "head_dim": 16},
    "Lfm2": {"layer_types": ["conv", "full_attention"], "block_ff_dim": 64},
    "Mamba": {"state_size": 4},
    "Qwen3Next": {
        **LINEAR,
        "shared_expert_intermediate_size": 16,
        "layer_types": ["linear_attention", "full_attention"],
    },
}
CANNOT = {
    "Mistral": set(),
    "Lfm2": {"contrastive", "early_exit"},
    "Mamba": {"contrastive", "speculative_sampling", *SPECULATIVE},
    "Qwen3Next": {"contrastive", "speculative_sampling", *SPECULATIVE},
}


@pytest.fixture(scope="module", params=KINDS)
def kind(request, tmp_path_factory):
    folder = save_tiny_model(tmp_path_factory.mktemp("kinds") / request.param, request.param, **KINDS[request.param])
    row = ModelSpec(request.param, str(folder), request.param, draft="budgie-draft")
    return request.param, row, engine(row)


def answer(model, strategy, helper=None, **values):
    chosen = {"strategy": strategy, "max_new_tokens": 12, "seed": 5, "exit_layer": 1, "force_words": "tea"} | values
    messages = build_messages([], "Say: tea, tea, tea")
    return sum(
        model.stream(TurnRequest.of(messages, Settings.check(chosen), threading.Event(), helper or draft())), Answer()
    )


@pytest.mark.slow
def test_every_strategy_answers_with_every_kind_of_model_or_is_refused_before_it_is_loaded_and_after(kind):
    name, row, model = kind
    abilities = registry.strategy_traits(row)
    assert {each.name for each in STRATEGIES.values() if each.refusal(abilities)} == CANNOT[name]
    for strategy in STRATEGIES.values():
        if strategy.name in CANNOT[name]:
            with pytest.raises(BadSetting) as refusal:
                answer(model, strategy.name)
            assert str(refusal.value) == strategy.refusal(abilities)
        else:
            assert answer(model, strategy.name).usage.new_tokens > 0


def test_drafts_change_no_token_of_any_kind_of_model(kind):
    name, _, model = kind
    for strategy in set(SPECULATIVE) - CANNOT[name]:
        assert answer(model, strategy).text == answer(model, "greedy").text


def test_the_stateful_architectures_are_those_of_the_library():
    folder = Path(transformers.__file__).parent / "models"
    found = {
        kind
        for kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        for file in (folder / model_type_to_module_name(kind)).glob("modeling_*.py")
        if "_is_stateful = True" in file.read_text("utf-8")
    }
    assert found == STATEFUL


@pytest.mark.parametrize(
    ("strategy", "abilities", "sentence"),
    [
        ("assisted", ModelTraits("X"), "X has no draft model, so Assisted decoding does not work with it."),
        (
            "assisted",
            ModelTraits("X", draft="Y", same_tokenizer=False),
            "Y, the draft of X, has another tokenizer, so",
        ),
        ("early_exit", ModelTraits("X", layers=1), "X has one layer only, so Self-speculative early exit does not"),
        ("prompt_lookup", ModelTraits("X", stateful=True), "X keeps a state that cannot be taken back, so"),
        ("contrastive", ModelTraits("X", recurrent=True), "X has layers other than attention, so"),
    ],
)
def test_a_refusal_says_what_is_missing_and_what_to_do(strategy, abilities, sentence):
    refusal = STRATEGIES[strategy].refusal(abilities)
    assert refusal.startswith(sentence) and refusal.endswith("Choose another strategy.")


@pytest.mark.parametrize("abilities", [ModelTraits("X", draft="Y"), ModelTraits("X", draft="Y", same_tokenizer=True)])
def test_what_is_not_known_yet_is_not_refused(abilities):
    assert not any(row.refusal(abilities) for row in STRATEGIES.values())


def other_tokenizer(folder):
    """A tokenizer of single bytes and of pairs of letters, saved over that of the model in `folder`."""
    vocabulary = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = list(itertools.product("aeiounrst", repeat=2))
    tokens = {token: i for i, token in enumerate([*vocabulary, *map("".join, pairs)])}
    made = Tokenizer(models.BPE(tokens, pairs))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    made.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    made.save(str(folder / "tokenizer.json"))


def test_a_draft_with_another_tokenizer_drafts_through_the_text_only(tmp_path, budgie):
    folder = save_tiny_model(tmp_path / "stranger")
    other_tokenizer(folder)
    row = registry.find("budgie")
    drafts = {"DRAFT_MODELS": f"budgie = {folder}"}
    stranger = registry.draft_of(row, drafts)
    helper = engine(stranger)
    with pytest.raises(BadSetting, match=r"stranger, the draft of Budgie .*, has another tokenizer"):
        answer(budgie, "assisted", helper)
    made = answer(budgie, "universal_assisted", helper, max_new_tokens=40)
    assert made.text == answer(budgie, "greedy", max_new_tokens=40).text
    assert made.usage.drafted > 0
    assert "assistant_tokenizer=" in made.run_record.program or "tokenizers=" in made.run_record.program


def test_drafts_come_from_the_environment_else_from_the_table(monkeypatch, tmp_path):
    row = registry.find("budgie")
    assert registry.draft_of(row, {}) == registry.DRAFT
    assert registry.strategy_traits(row).same_tokenizer is True
    chosen = registry.draft_of(row, {"DRAFT_MODELS": "Qwen/Qwen3-8B=org/small@v1, budgie=org/tiny"})
    assert (chosen.id, chosen.revision) == ("org/tiny", None)
    large = registry.find("Qwen/Qwen3-8B", {"MODEL_IDS": "Qwen/Qwen3-8B"})
    assert registry.draft_of(large, {}).name == "Qwen/Qwen3-0.6B"
    folder = save_tiny_model(tmp_path / "stranger")
    monkeypatch.setenv("DRAFT_MODELS", f"budgie={folder}")
    assert registry.strategy_traits(row).same_tokenizer is True  # it has Budgie's
    other_tokenizer(folder)
    assert registry.strategy_traits(row).same_tokenizer is False
    monkeypatch.setenv("DRAFT_MODELS", "budgie=org/never-downloaded")
    assert registry.strategy_traits(row).same_tokenizer is None


@pytest.mark.parametrize("pairs", ["budgie", "budgie=", "=org/tiny", "budgie=org/tiny,x"])
def test_what_draft_models_cannot_say_is_refused_with_how_to_write_it(pairs):
    with pytest.raises(ModelUnavailable, match="Write target=draft, a comma between pairs"):
        registry.draft_of(registry.find("budgie"), {"DRAFT_MODELS": pairs})


def test_drafts_are_placed_at_start_on_zerogpu():
    placed = preload.models_at_startup({"SPACES_ZERO_GPU": "true", "MODEL_IDS": "budgie,Qwen/Qwen3-1.7B"})
    assert [row.name for row in placed] == ["budgie", "Qwen/Qwen3-1.7B", "budgie-draft", "Qwen/Qwen3-0.6B"]


def test_the_api_lists_and_refuses_with_the_same_sentence(inside):
    client = Client(inside.url, verbose=False)
    rows = {row["name"]: row for row in client.predict(model=inside.stateful, api_name="/strategies")}
    assert {name for name, row in rows.items() if row["unavailable"]} == CANNOT["Mamba"]
    assert rows["prompt_lookup"]["demands"] == ["no recurrent state"]
    with pytest.raises(AppError) as refusal:
        client.predict("Hi", model=inside.stateful, strategy="prompt_lookup", api_name="/chat")
    assert str(refusal.value) == rows["prompt_lookup"]["unavailable"]
    assert not any(row["unavailable"] for row in client.predict(api_name="/strategies"))
    with pytest.raises(AppError, match="no model called 'x' here"):
        client.predict(model="x", api_name="/strategies")


def test_the_page_shows_what_a_model_cannot_do_and_why(visitor):
    visitor.choose("model", "stateful")
    visitor.setting("strategy").locator("input").click()
    options = visitor.page.get_by_role("option")
    expect(options.filter(has_text="(not with this model)")).to_have_count(len(CANNOT["Mamba"]))
    options.filter(has_text="Prompt lookup").click()
    reason = "stateful keeps a state that cannot be taken back, so Prompt lookup does not work with it."
    expect(visitor.setting("strategy")).to_contain_text(reason)
    visitor.ask("Hello")
    expect(visitor.error).to_contain_text(reason)
    visitor.choose("strategy", "Greedy")
    visitor.press("Retry")
    visitor.until_free()
    expect(visitor.error).to_have_count(0)


def test_a_layer_past_the_last_cannot_be_reached_on_the_page(visitor):
    visitor.choose("strategy", "Self-speculative early exit")
    assert visitor.setting("exit_layer").locator("input[type=range]").get_attribute("max") == "5"


def test_the_parrot_is_asked_for_nothing_that_means_nothing_to_it(parrot):
    expect(parrot.setting("max_new_tokens")).to_be_visible()
    for name in ("strategy", "temperature", "system_prompt", "thinking", "thinking_budget"):
        expect(parrot.setting(name)).to_be_hidden()
