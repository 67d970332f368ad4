"""Which models can be chosen, and what is known of one before it is loaded."""

import json
import subprocess
import sys

import pytest

from parley.errors import ModelUnavailable
from parley.models import hardware, registry
from parley.models.registry import MODELS, Traits, find, models, recommended_settings, traits
from parley.models.spec import ModelSpec
from parley.models.traits import context_length, reads_thinking
from parley.settings import Settings

SMOL = "HuggingFaceTB/SmolLM2-135M-Instruct"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama", "max_position_embeddings": 2048}')
    return tmp_path


def offered(**environ):
    return list(models(environ))


def test_model_ids_alone_decide_what_is_offered_and_in_which_order(folder):
    assert offered(MODEL_IDS=f" org/b@v1.0, parrot,{folder} ,,org/a, budgie ") == [
        "org/b@v1.0",
        "parrot",
        folder.name,
        "org/a",
        "budgie",
    ]


def test_a_model_that_is_named_twice_is_offered_once():
    assert offered(MODEL_IDS="org/a,budgie,org/a") == ["org/a", "budgie"]


def test_a_pinned_revision_is_kept_beside_the_id():
    row = models({"MODEL_IDS": "org/a@refs/pr/1"})["org/a@refs/pr/1"]
    assert (row.id, row.revision) == ("org/a", "refs/pr/1")


def test_a_model_of_the_catalogue_keeps_its_row_and_takes_a_revision():
    plain, pinned = models({"MODEL_IDS": f"{SMOL},{SMOL}@abc"}).values()
    assert plain in MODELS
    assert (pinned.licence, pinned.parameters, pinned.revision) == (plain.licence, plain.parameters, "abc")
    assert pinned.label != plain.label


def test_a_local_folder_is_found_from_where_the_app_runs(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    for item in (f"./{folder.name}", folder.name, f"../{folder.parent.name}/{folder.name}"):
        row = models({"MODEL_IDS": item})[folder.name]
        assert (row.folder, row.label) == (folder.resolve(), folder.name)


def test_what_is_on_the_disk_comes_before_the_hub(folder, monkeypatch):
    monkeypatch.chdir(folder.parent.parent)
    item = f"{folder.parent.name}/{folder.name}"
    assert models({"MODEL_IDS": item})[folder.name].folder == folder.resolve()
    assert models({"MODEL_IDS": "org/elsewhere"})["org/elsewhere"].folder is None


def test_a_label_is_the_public_name_and_no_path_is_shown_or_accepted(folder):
    environ = {"MODEL_IDS": f"mine = {folder},big=org/name@v1,budgie", "ALLOW_ANY_MODEL": "1"}
    rows = models(environ)
    assert [(row.name, row.label) for row in rows.values()][:2] == [("mine", "mine"), ("big", "big")]
    assert (rows["big"].id, rows["big"].revision) == ("org/name", "v1")
    assert find("mine", environ).folder == folder
    with pytest.raises(ModelUnavailable) as refused:
        find(str(folder), environ)
    assert "mine" not in str(refused.value) and "org/name@revision" in str(refused.value)


def test_two_models_of_one_name_are_refused_with_the_way_out(folder, tmp_path):
    other = tmp_path / "elsewhere" / folder.name
    other.mkdir(parents=True)
    (other / "config.json").write_text("{}")
    with pytest.raises(ModelUnavailable, match="label=path"):
        models({"MODEL_IDS": f"{folder},{other}"})
    assert list(models({"MODEL_IDS": f"{folder},b={other}"})) == [folder.name, "b"]


def test_a_folder_that_vanishes_takes_only_itself_away(folder, caplog):
    environ = {"MODEL_IDS": f"gone={folder},budgie"}
    assert list(models(environ)) == ["gone", "budgie"]
    (folder / "config.json").unlink()
    folder.rmdir()
    assert list(models(environ)) == ["budgie", "gone"]
    assert find("", environ).name == "budgie"
    with pytest.raises(ModelUnavailable, match="gone is not on the disk any more"):
        find("gone", environ)
    assert "gone is not on the disk any more" in caplog.text
    assert str(folder) not in models(environ)["gone"].problem
    assert registry.estimate(models(environ)["gone"], lambda fit: 10**9) is None


@pytest.mark.parametrize(
    "item",
    ["org", "a/b/c", "org/a b", "org/a@", "org/a@../x", "org/--a", "https://hf.co/org/a", "a.gguf"],
)
def test_a_malformed_id_is_refused_with_the_form_it_should_have(item):
    with pytest.raises(ModelUnavailable, match="org/name@revision"):
        models({"MODEL_IDS": f"budgie,{item}"})


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ModelUnavailable, match=r"no config\.json"):
        models({"MODEL_IDS": str(tmp_path)})


def test_only_the_weights_that_would_be_loaded_count(folder):
    for name in ("model.safetensors", "consolidated.safetensors"):
        (folder / name).write_bytes(b"x" * 1000)
    row = find("", {"MODEL_IDS": str(folder)})
    weights = registry.estimate(row, lambda fit: 10**9).figures["weights"]
    assert weights in (1000, 2000, 4000)  # as stored, as 32-bit floats, and with the copy that OpenVINO has of them


def test_without_model_ids_the_hardware_decides_and_real_models_come_first():
    found, zero = models({}), models({"SPACES_ZERO_GPU": "true"})
    for rows in (found, zero):
        assert list(rows)[-2:] == ["budgie", "parrot"]
    assert {row.tier for row in found.values()} == set(registry.TIERS[hardware.tier()])
    assert SMOL not in zero
    assert [row.tier for row in zero.values()] == ["zerogpu", "zerogpu", "zerogpu", "cpu", "any", "any"]
    assert [row.label for row in zero.values() if row.cpu_on_zerogpu] == ["Qwen3 0.6B", "Budgie (bundled)"]
    on_the_gpu = [row for row in zero.values() if not row.cpu_on_zerogpu]
    assert sum(row.bytes or 0 for row in on_the_gpu) < 22e9  # what one ZeroGPU worker holds with ease
    assert models({"MODEL_IDS": " , "}) == found


def test_every_row_says_what_an_owner_wants_to_know():
    assert {row.tier for row in MODELS} <= {tier for tiers in registry.TIERS.values() for tier in tiers}
    assert len({row.name for row in MODELS}) == len({row.label for row in MODELS}) == len(MODELS)
    for row in MODELS:
        assert row.licence in ("Apache-2.0", "MIT")
        assert row.thinking is not None
        if row.engine == "local":
            assert 1.5 < row.bytes / row.parameters < 3  # two bytes each, and a copy of the embeddings at most
        if row.folder is None and row.id:
            assert row.name == row.id


def test_an_unknown_name_is_answered_with_the_names_there_are():
    with pytest.raises(ModelUnavailable, match=r"'org/x'.*budgie, parrot"):
        find("org/x", {"MODEL_IDS": "budgie,parrot"})


def test_no_name_means_the_default():
    assert find("", {"MODEL_IDS": "parrot,budgie"}).name == "parrot"


def test_any_model_of_the_hub_can_be_named_only_where_the_owner_allows_it_and_never_on_a_space():
    allowed = {"MODEL_IDS": "budgie", "ALLOW_ANY_MODEL": "1"}
    assert find("org/x@v2", allowed).revision == "v2"
    for environ in (allowed | {"SPACE_ID": "me/space"}, {"MODEL_IDS": "budgie"}):
        with pytest.raises(ModelUnavailable):
            find("org/x@v2", environ)


@pytest.mark.parametrize("name", ["./x", "/etc", "~", "../../x", "", "C:/x/y"])
def test_a_visitor_cannot_name_a_path(name, folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    environ = {"MODEL_IDS": "budgie", "ALLOW_ANY_MODEL": "1"}
    for tried in {name, f"./{folder.name}", str(folder)} - {""}:
        with pytest.raises(ModelUnavailable):
            find(tried, environ)


def test_the_catalogue_does_without_torch():
    code = "import sys, parley.models.registry; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_traits_of_budgie_are_read_from_its_files():
    recommended = {"strategy": "sampling", "temperature": 0.7, "top_p": 0.95, "top_k": 0}
    assert traits(find("budgie", {"MODEL_IDS": "budgie"})) == Traits(
        recommended, thinking=True, context=1024, layers=6
    )


def test_traits_of_the_parrot_are_those_of_its_row():
    assert traits(find("parrot", {"MODEL_IDS": "parrot"})) == Traits({}, thinking=False, context=None)


def test_recommended_values_pass_the_check_of_the_settings_and_nothing_is_invented():
    assert recommended_settings({"eos_token_id": 2, "top_p": None}) == {}
    given = {"do_sample": True, "temperature": 9.0, "top_k": 20.0, "top_p": 0.8, "min_p": 0, "repetition_penalty": 9}
    found = recommended_settings(given)
    assert found == {
        "strategy": "sampling",
        "temperature": 2.0,
        "top_k": 20,
        "top_p": 0.8,
        "min_p": 0.0,
        "repetition_penalty": 2.0,
    }
    assert Settings.check({}, found).top_k == 20
    assert recommended_settings({"do_sample": False}) == {"strategy": "greedy"}
    assert recommended_settings({"top_k": 10**400, "min_p": float("nan")}) == {"top_k": 1000}
    assert recommended_settings({"do_sample": "yes", "temperature": "hot", "top_p": True, "top_k": 1e999}) == {}


@pytest.mark.parametrize(
    ("template", "switch"),
    [
        ("{% if enable_thinking is defined and enable_thinking %}/think{% endif %}", True),
        ("{% generation %}{{ enable_thinking }}{% endgeneration %}", True),
        ("{% for m in messages %}{% if enable_thinking %}{% break %}{% endif %}{% endfor %}", True),
        ("{% set enable_thinking = false %}{{ enable_thinking }}", False),
        ("{# enable_thinking #}enable_thinking{{ messages }}", False),
        ("{% broken enable_thinking", False),
        ("{{" + "(" * 2000 + "enable_thinking", False),
    ],
)
def test_a_thinking_switch_is_one_that_the_template_reads(template, switch):
    assert reads_thinking(template) is switch


def test_templates_are_found_wherever_tokenizers_keep_them(folder):
    thinks, plain = "{{ enable_thinking }}", "{{ messages }}"
    settings = folder / "tokenizer_config.json"
    row = ModelSpec("m", str(folder), "m")
    assert traits(row) == Traits({}, thinking=False, context=2048)
    settings.write_text(json.dumps({"chat_template": thinks, "model_max_length": 1000}))
    assert traits(row) == Traits({}, thinking=True, context=1000)
    named = [{"name": "tool_use", "template": plain}, {"name": "default", "template": thinks}]
    settings.write_text(json.dumps({"chat_template": named}))
    assert traits(row).thinking
    (folder / "chat_template.jinja").write_text(plain)
    assert not traits(row).thinking


def test_spoilt_small_files_leave_the_traits_at_their_defaults(folder):
    (folder / "config.json").write_text("[1")
    (folder / "generation_config.json").write_text("[]")
    (folder / "tokenizer_config.json").write_bytes(b"\xff\xfe")
    assert traits(ModelSpec("m", str(folder), "m", thinking=True)) == Traits({}, thinking=True, context=None)


ODD = (True, 0, -1, 10**400, float("nan"), "x", ["x"], [{"name": ["x"]}], {"a": 1})


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: repr(odd)[:9])
def test_values_of_any_kind_in_the_small_files_break_neither_the_traits_nor_the_plan(folder, odd):
    row, sound = ModelSpec("m", str(folder), "m", bytes=1000), json.loads((folder / "config.json").read_text())
    names = ("model_type", "dtype", "text_config", "quantization_config", "num_hidden_layers", "layer_types")
    for name in (*names, "max_position_embeddings", "num_attention_heads", "hidden_size", "vocab_size"):
        (folder / "config.json").write_text(json.dumps(sound | {name: odd}))
        (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": odd, "model_max_length": odd}))
        known = traits(row)
        assert not known.thinking and known.recommended == {}
        assert "of memory" in registry.estimate(row, lambda fit: 10**9, known).sentence


def test_the_context_is_the_smaller_of_what_model_and_tokenizer_state():
    assert context_length({"max_position_embeddings": 40960}, 131072) == 40960
    assert context_length({"max_position_embeddings": 8192}, 2048) == 2048
    assert context_length({"n_positions": 1024}, 1e30) == 1024
    assert context_length({"text_config": {"max_position_embeddings": 512}, "max_position_embeddings": 9}) == 512
    assert context_length({"max_position_embeddings": True}, "many") is None
