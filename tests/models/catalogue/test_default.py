"""Which model is the default, on machines of every kind with files of every kind."""

import json

import pytest
from huggingface_hub import constants

from parley.models import hardware, hub, registry
from parley.models.catalogue import default
from parley.models.catalogue.default import Here
from parley.models.catalogue.rows import MODELS, REAL, TOY
from parley.models.hardware import Gpu, Machine
from tests.engines.openvino.test_published_configs import PUBLISHED
from tests.standins.hub import put_into_cache

GB = 10**9
CPU_ROWS = [row for row in MODELS if row.tier in registry.TIERS["cpu"]]


def machine(*, threads=2, vnni=True, bandwidth=40, memory=20, disk=100, device="cpu", cards=()):
    return Here(
        lambda: Machine(device, cards=cards, threads=threads, has_vnni=vnni),
        lambda plan: int(memory * GB),
        lambda: int(disk * GB),
        lambda: bandwidth * 1e9,
    )


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def download(cache, *labels, share=1.0):
    """Puts these models there, with weights that take no room."""
    for spec in REAL:
        if spec.label in labels:
            files = {
                "config.json": json.dumps(PUBLISHED.get(spec.id, {"model_type": "llama"})),
                "tokenizer.json": "{}",
            }
            folder = put_into_cache(cache, spec.id, files)
            with (folder / "model.safetensors").open("wb") as file:
                file.truncate(int(share * spec.bytes))


def best(here, where="cpu", rows=CPU_ROWS):
    return next((spec.label for spec in default.candidates(rows, where, here)), None)


ALL = [spec.label for spec in REAL]
CPUS = {
    "quiet, VNNI": (machine(), "Qwen3 1.7B"),
    "busy, VNNI": (machine(bandwidth=23), "OLMo 2 1B"),
    "AVX2": (machine(vnni=False), "Qwen3 0.6B"),
    "one core": (machine(threads=1, vnni=False), "SmolLM2 360M"),
    "little memory": (machine(memory=1), "SmolLM2 135M"),
    "no memory": (machine(memory=0.3), None),
    "slow memory": (machine(bandwidth=1), None),
}


@pytest.mark.parametrize(("here", "label"), CPUS.values(), ids=CPUS)
def test_on_a_cpu_it_is_the_largest_that_fits_and_is_fast_enough(cache, here, label):
    download(cache, *ALL)
    assert best(here) == label


def test_only_files_that_are_whole_on_the_disk_count(cache):
    assert best(machine()) is None
    download(cache, "Qwen3 1.7B", share=0.5)  # a part of its weights
    download(cache, "SmolLM2 360M", "SmolLM2 135M")
    assert best(machine()) == "SmolLM2 360M"
    spec = next(row for row in REAL if row.label == "SmolLM2 360M")
    (hub.on_disk(spec).folder / "tokenizer.json").unlink()
    assert best(machine()) == "SmolLM2 135M"


def test_of_weights_in_several_files_none_may_be_missing(cache):
    spec = next(row for row in REAL if row.label == "Qwen3 1.7B")
    files = {"config.json": json.dumps(PUBLISHED[spec.id]), "tokenizer.json": "{}"}
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    files["model.safetensors.index.json"] = json.dumps({"weight_map": dict(enumerate(names))})
    folder = put_into_cache(cache, spec.id, files)
    for name in names:
        assert best(machine()) is None
        with (folder / name).open("wb") as file:
            file.truncate(spec.bytes // 2)
    assert best(machine()) == "Qwen3 1.7B"


def test_on_a_gpu_it_is_the_first_of_the_table_that_is_on_the_disk_and_fits(cache):
    rows = [row for row in MODELS if row.tier in registry.TIERS["gpu-48"]]
    card = machine(device="cuda", cards=(Gpu(48 * GB, (9, 0)),), memory=48)
    assert best(card, "gpu-48", rows) is None
    download(cache, "Qwen3 8B", "Qwen3 4B")
    assert best(card, "gpu-48", rows) == "Qwen3 4B"


def test_on_zerogpu_it_is_the_first_of_the_table_that_was_loaded():
    environ = {"SPACES_ZERO_GPU": "true"}
    registry.decide_default(environ=environ)
    assert registry.find("", environ).label == "SmolLM3 3B"
    registry.decide_default(lambda spec: spec.label == "Granite 4.1 3B", environ)
    assert registry.find("", environ).label == "Granite 4.1 3B"
    registry.decide_default(lambda spec: False, environ)
    assert registry.find("", environ) is TOY
    registry.decide_default(environ=environ)


def test_what_is_downloaded_later_does_not_change_it(cache, monkeypatch):
    monkeypatch.setattr(registry, "_decided", {})
    monkeypatch.setattr(hardware, "tier", lambda: "cpu")
    monkeypatch.setattr(default, "Here", machine)
    assert registry.find("", {}) is TOY and registry.lacks_real_model({})
    download(cache, "SmolLM2 135M")
    assert registry.find("", {}) is TOY
    registry.decide_default(environ={})  # the next start
    assert registry.find("", {}).label == "SmolLM2 135M" and not registry.lacks_real_model({})


def test_what_the_owner_names_decides_and_needs_no_line(cache):
    download(cache, *ALL)
    for environ in ({"MODEL_IDS": "parrot,budgie"}, {"MODEL_IDS": "budgie"}):
        assert registry.find("", environ).name == environ["MODEL_IDS"].split(",")[0]
        assert not registry.lacks_real_model(environ)
    servers = {"REMOTE_MODELS": "org/x", "REMOTE_BASE_URL": "http://127.0.0.1:9"}
    assert registry.find("", servers).name == "org/x" and not registry.lacks_real_model(servers)


@pytest.mark.parametrize(("here", "label"), CPUS.values(), ids=CPUS)
def test_the_model_to_fetch_is_the_one_that_would_be_the_default(here, label):
    offered = default.to_download(CPU_ROWS, "cpu", here)
    # The head of a model whose configuration is not here yet is taken to be its embedding.
    assert (offered and offered.label) in ((label, "Qwen3 0.6B") if label == "OLMo 2 1B" else (label,))


def test_a_model_that_the_disk_cannot_take_is_not_offered_and_nothing_is_without_a_network(monkeypatch):
    assert default.to_download(CPU_ROWS, "cpu", machine(disk=1)).label == "SmolLM2 360M"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert default.to_download(CPU_ROWS, "cpu", machine()) is None


def test_the_bandwidth_is_one_that_a_memory_can_have():
    assert 1e8 < hardware.memory_bandwidth() < 1e13
