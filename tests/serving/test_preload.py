"""What is loaded before the first visitor: on ZeroGPU everything, and only what fits together."""

import shutil
from dataclasses import replace

import pytest
from huggingface_hub import constants

from parley.errors import BadVariable
from parley.models import hardware, registry
from parley.models.catalogue import default
from parley.models.catalogue.rows import MODELS, TOY
from parley.serving import preload
from parley.serving.model_pool import ModelPool
from tests.standins.hub import WEIGHTS, put_into_cache

LARGE = "Qwen/Qwen3-8B,allenai/Olmo-3-7B-Instruct,HuggingFaceTB/SmolLM3-3B,ibm-granite/granite-4.1-3b"


def on_zerogpu(**environ):
    return {"SPACES_ZERO_GPU": "true"} | environ


def test_the_catalogue_fits_into_a_usual_turns_memory():
    rows = preload.models_at_startup(on_zerogpu())
    assert {row.name for row in rows} >= set(registry.models(on_zerogpu()))


def test_models_that_do_not_fit_together_end_the_start_with_a_table_of_sizes():
    with pytest.raises(SystemExit) as end:
        preload.models_at_startup(on_zerogpu(MODEL_IDS=LARGE))
    head, _, *table = str(end.value).splitlines()
    assert "do not fit together into the 48 GB that a turn on ZeroGPU gets" in head
    assert "ZEROGPU_SIZE=xlarge" in head and "MODEL_IDS" in head
    assert [line.split("  ")[0] for line in table] == [
        "Qwen3 8B",
        "Olmo 3 7B",
        "SmolLM3 3B",
        "Granite 4.1 3B",
        "Qwen3 0.6B",  # drafts tokens for the first
        "together",
    ]
    sizes = [float(line.split()[-2]) for line in table]
    assert sizes[0] == pytest.approx(1.2 * 16.4, abs=0.1)
    assert sizes[-1] == pytest.approx(sum(sizes[:-1]), abs=0.5)
    assert sizes[-1] > 48


def test_a_whole_card_takes_them_and_fewer_bytes_a_weight_make_them_fit():
    assert len(preload.models_at_startup(on_zerogpu(MODEL_IDS=LARGE, ZEROGPU_SIZE="xlarge"))) == 5
    assert len(preload.models_at_startup(on_zerogpu(MODEL_IDS=LARGE, QUANTIZATION="int4"))) == 5


def test_an_unknown_part_of_a_card_is_refused():
    with pytest.raises(BadVariable, match="Set it to one of large, xlarge, or leave it out"):
        preload.gpu_size({"ZEROGPU_SIZE": "huge"})
    assert preload.gpu_size({}) is None


def test_elsewhere_only_a_default_that_is_here_is_loaded():
    assert [row.name for row in preload.models_at_startup({"MODEL_IDS": "budgie,parrot"})] == ["budgie"]
    assert preload.models_at_startup({"MODEL_IDS": "Qwen/Qwen3-8B"}) == []


@pytest.fixture
def downloaded(tiny, tmp_path, monkeypatch):
    """A row of the catalogue for a tiny model whose files are all in the cache; the row, and the folder."""
    row = replace(registry.MODELS[0], bytes=(tiny / WEIGHTS).stat().st_size, parameters=200_000)
    for table in ((default, "REAL", (row,)), (registry, "MODELS", (row, *MODELS[-2:])), (registry, "_decided", {})):
        monkeypatch.setattr(*table)
    monkeypatch.setattr(hardware, "tier", lambda: "cpu")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    folder = put_into_cache(tmp_path, row.id, {})
    return row, shutil.copytree(tiny, folder, dirs_exist_ok=True)


def test_the_best_model_on_the_disk_is_loaded_before_the_first_visitor_and_is_the_default(downloaded):
    row, _ = downloaded
    pool = ModelPool()
    preload.load_models(pool, {})
    assert list(pool.loaded) == [row.name]
    assert registry.find("", {}) is row
    assert list(registry.models({})) == [row.name, "budgie", "parrot"]


def test_one_that_cannot_be_loaded_leaves_the_next_best_as_the_default(downloaded, caplog):
    row, folder = downloaded
    (folder / WEIGHTS).write_bytes(bytes(row.bytes))
    pool = ModelPool()
    preload.load_models(pool, {})
    assert list(pool.loaded) == ["budgie"]
    assert registry.find("", {}) is TOY
    assert row.label in caplog.text


def test_what_the_owner_names_and_is_in_the_cache_is_loaded_as_it_is_there(downloaded):
    row, _ = downloaded
    assert preload.models_at_startup({"MODEL_IDS": f"{row.name},budgie"})[0].name == row.name
    assert preload.models_at_startup({"MODEL_IDS": "parrot"}) == []


def test_the_models_on_the_cpu_take_nothing_of_the_gpu():
    environ = on_zerogpu(MODEL_IDS="Qwen/Qwen3-0.6B,budgie,HuggingFaceTB/SmolLM3-3B")
    rows = preload.models_at_startup(environ)
    assert [row.name for row in rows if row.cpu_on_zerogpu] == ["Qwen/Qwen3-0.6B", "budgie", "budgie-draft"]
    needs = dict(preload._needs(rows, 48_000_000_000, environ))
    assert list(needs) == ["SmolLM3 3B"]


def test_a_draft_model_computes_where_its_target_does():
    draft = registry.draft_of(registry.find("Qwen/Qwen3-8B", {"MODEL_IDS": "Qwen/Qwen3-8B"}), on_zerogpu())
    assert (draft.name, draft.cpu_on_zerogpu) == ("Qwen/Qwen3-0.6B", False)
    assert registry.draft_of(TOY, on_zerogpu()).cpu_on_zerogpu
