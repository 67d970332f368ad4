"""What is named on this disk: each kind is found, or a sentence says why it cannot be used."""

import json

import pytest
from safetensors.torch import save_file

from parley.errors import ModelUnavailable
from parley.models import registry
from parley.models.formats import gguf
from tests.standins import gguf_files


def row(place, environ=None):
    return registry.models({"MODEL_IDS": f"mine={place},budgie"})["mine"]


@pytest.fixture(scope="module", name="file")
def gguf_file(tiny, tmp_path_factory):
    """A sound GGUF file, not to be changed."""
    return gguf_files.write(tiny, tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture
def adapter(tiny, tmp_path):
    """A folder with an adapter_config.json to change, and weights."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    save_file({}, folder / "adapter_model.safetensors")
    stated = {"peft_type": "LORA", "r": 3, "lora_alpha": 6, "base_model_name_or_path": str(tiny)}
    (folder / "adapter_config.json").write_text(json.dumps(stated))
    return folder


def change(adapter, **fields):
    config = adapter / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | fields))


def test_a_gguf_file_and_a_folder_with_one_are_the_same_model(file):
    for place in (file, file.parent):
        found = row(place)
        assert (found.folder, found.gguf, found.problem) == (file.parent, "tiny.gguf", "")
    assert next(iter(registry.models({"MODEL_IDS": str(file)}))) == "tiny.gguf"


def test_a_gguf_file_of_the_hub_is_named_with_its_repository():
    found = registry.models({"MODEL_IDS": "org/name/model-Q8_0.gguf@v2"})["org/name/model-Q8_0.gguf@v2"]
    assert (found.id, found.gguf, found.revision, found.folder) == ("org/name", "model-Q8_0.gguf", "v2", None)


def test_a_folder_with_several_gguf_files_asks_for_one(file, tmp_path):
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(file.read_bytes())
    assert "has 2 GGUF files. Name one of them" in row(tmp_path).problem


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"architecture": "mamba"}, "of the architecture 'mamba', which is not read here"),
        ({"extra": {"general.type": "mmproj"}}, "of the kind 'mmproj', not of a whole model"),
        ({"extra": {"general.type": "adapter"}}, "of the kind 'adapter', not of a whole model"),
    ],
)
def test_a_gguf_file_of_another_kind_is_named_as_what_it_is(tiny, tmp_path, options, sentence):
    assert sentence in row(gguf_files.write(tiny, tmp_path / "other.gguf", **options)).problem


def test_a_part_a_damaged_and_a_cut_gguf_file_are_told_apart(file, tmp_path):
    data, other = file.read_bytes(), tmp_path / "other.gguf"
    part = tmp_path / "m-00001-of-00003.gguf"
    part.write_bytes(data)
    assert "one part of a GGUF model in several files" in row(part).problem
    for spoilt in (b"", b"GGUF", b"PK" + data[2:], data[:4] + b"\x01" + data[5:], data[:2000]):
        other.write_bytes(spoilt)
        assert "is no GGUF file of version 2 or 3, or it is damaged" in row(other).problem
    last = max(gguf.header(file).tensors.values(), key=lambda info: info.offset)
    other.write_bytes(data[: last.offset])
    assert "is not whole" in row(other).problem


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"peft_type": "IA3"}, "an adapter of the kind IA3"),
        ({"use_dora": True}, "an adapter DoRA"),
        ({"modules_to_save": ["lm_head"]}, "with whole layers beside it"),
        ({"alpha_pattern": {"q_proj": 2}}, "with an alpha for each layer"),
        ({"bias": "all"}, "with trained biases"),
        ({"base_model_name_or_path": None}, "does not name its base model"),
        ({"base_model_name_or_path": "/nowhere/base"}, "its base model cannot be used: base is not on the disk"),
        ({"base_model_name_or_path": "only"}, "its base model cannot be used: only is neither on this disk"),
        ({"lora_alpha": "much"}, "without numbers for r and lora_alpha"),
    ],
)
def test_an_adapter_that_cannot_be_merged_is_named_as_what_it_is(adapter, fields, sentence):
    change(adapter, **fields)
    assert sentence in row(adapter).problem


def test_an_adapter_without_weights_or_a_readable_configuration_says_so(adapter):
    (adapter / "adapter_model.safetensors").unlink()
    assert "without adapter_model.safetensors" in row(adapter).problem
    (adapter / "adapter_config.json").write_text("[")
    assert "no readable adapter_config.json" in row(adapter).problem


def test_an_adapter_of_a_hub_model_keeps_what_is_known_of_that(adapter):
    base = "HuggingFaceTB/SmolLM2-135M-Instruct"
    change(adapter, base_model_name_or_path=base)
    found = row(adapter)
    assert (found.id, found.name, found.adapter, found.problem) == (base, "mine", str(adapter), "")


def test_no_problem_shows_a_path(adapter, tmp_path):
    change(adapter, base_model_name_or_path=str(tmp_path / "gone"))
    for place in (adapter, tmp_path / "gone", tmp_path / "gone.gguf", tmp_path):
        assert row(place).problem
        assert str(tmp_path) not in row(place).problem


def test_an_item_that_cannot_be_used_does_not_keep_the_others_from_starting(adapter, caplog):
    change(adapter, peft_type="IA3")
    assert list(registry.models({"MODEL_IDS": f"mine={adapter},budgie"})) == ["budgie", "mine"]
    with pytest.raises(ModelUnavailable, match="of the kind IA3"):
        registry.models({"MODEL_IDS": f"mine={adapter}"})
