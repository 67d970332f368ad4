"""The probe that finds the rows of a pass: kept on the disk, by processor, version, shapes, threads and precision."""

import importlib.util
import json
import logging
import platform
import stat
import subprocess
import sys

import pytest

pytest.importorskip("openvino")

import openvino
from transformers import AutoConfig

from parley.engines.openvino import batch_invariance as shared
from parley.engines.openvino import loader
from parley.engines.openvino.batch_invariance import LIMITS, NOT_FOUND, probe
from parley.engines.openvino.loader import properties
from parley.models.registry import BUDGIE
from tests.conftest import engine
from tests.engines.openvino.asking import SHORT, answer
from tests.engines.openvino.decoders import config_of

CONFIG = AutoConfig.from_pretrained(BUDGIE / "weights")
TINY = config_of("qwen3", head_dim=32, num_hidden_layers=2)


def new_process():
    """The module as a new process has it, which has found nothing yet."""
    spec = importlib.util.find_spec(shared.__name__)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


class Probed:
    """What processes ask for, one after the other; each try finds another number."""

    def __init__(self):
        self.tried = []
        self.restart()

    def restart(self):
        self.module = new_process()
        self.module.probe = self.module.probe_in_child = self.try_once

    def try_once(self, config, precision, asked):
        self.tried.append((config.model_type, precision, asked["INFERENCE_NUM_THREADS"]))
        return 10 + len(self.tried)

    def find(self, cache, **asked):
        return find(self.module, cache, **asked)


@pytest.fixture
def probed():
    return Probed()


def find(module, cache, config=CONFIG, precision="int8", threads=1):
    return module.max_rows(config, precision, properties(precision, threads), cache)


def test_it_is_found_once_and_read_from_its_file_by_the_next_process(probed, tmp_path):
    cache = tmp_path / "below" / "rows.json"
    assert [probed.find(cache), probed.find(cache)] == [11, 11]
    probed.restart()
    assert probed.find(cache) == 11
    assert len(probed.tried) == 1
    assert list(json.loads(cache.read_text()).values()) == [11]
    assert [path.name for path in cache.parent.iterdir()] == ["rows.json"]


def test_what_it_depends_on_is_its_key(probed, tmp_path, monkeypatch):
    cache = tmp_path / "rows.json"
    given = [{}, {"threads": 2}, {"precision": "float32"}, {"config": TINY}]
    found = [probed.find(cache, **each) for each in given]
    monkeypatch.setattr(openvino, "__version__", "another")
    found.append(probed.find(cache))
    monkeypatch.undo()
    probed.restart()
    assert found == [11, 12, 13, 14, 15]
    assert [probed.find(cache, **each) for each in given] == found[:4]
    assert len(json.loads(cache.read_text())) == 5


def test_a_deeper_model_of_the_same_shapes_is_not_tried_again(probed, tmp_path):
    deeper = AutoConfig.from_pretrained(BUDGIE / "weights", num_hidden_layers=30)
    assert probed.find(tmp_path / "rows.json") == probed.find(tmp_path / "rows.json", config=deeper) == 11


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": "b"}', '{"a": null}', "\0"])
def test_a_spoilt_file_is_replaced(probed, tmp_path, text):
    cache = tmp_path / "rows.json"
    cache.write_text(text)
    assert probed.find(cache) == 11
    probed.restart()
    assert probed.find(cache) == 11


def test_a_folder_that_cannot_be_written_leaves_it_in_memory(probed, tmp_path):
    cache = tmp_path / "a file" / "rows.json"
    cache.parent.write_text("no folder")  # a folder without the right to write stops everybody but root
    assert [probed.find(cache), probed.find(cache)] == [11, 11]
    probed.restart()
    assert probed.find(cache) == 12


def test_a_folder_without_the_right_to_write_leaves_it_in_memory_too(probed, tmp_path):
    cache = tmp_path / "rows.json"
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        assert [probed.find(cache), probed.find(cache)] == [11, 11]
    finally:
        tmp_path.chmod(stat.S_IRWXU)


@pytest.mark.parametrize("precision", ["int8", "float32"])
def test_here_it_finds_some(precision):
    assert probe(TINY, precision, properties(precision, 1)) in LIMITS


def test_rows_that_depend_on_their_company_give_fewer_rows_or_none(monkeypatch):
    """As if the library had another kernel from so many rows on."""
    plain, limit = shared.Decoder.run, 40

    def run(self, batch):
        made = plain(self, batch)
        if sum(len(rows.ids) for rows in batch) > limit:
            made.logits[...] *= 1.0001
        return made

    monkeypatch.setattr(shared.Decoder, "run", run)
    assert probe(TINY, "float32", properties("float32", 1)) == 32
    limit = 1
    assert probe(TINY, "float32", properties("float32", 1)) == NOT_FOUND


def test_a_class_of_rows_that_depends_on_its_neighbours_is_noticed(monkeypatch):
    plain = shared.Decoder.run

    def run(self, batch):
        made = plain(self, batch)
        if len(batch) > 1 and any(rows.is_chunk for rows in batch):
            made.logits[...] *= 1.0001
        return made

    monkeypatch.setattr(shared.Decoder, "run", run)
    assert probe(TINY, "float32", properties("float32", 1)) == NOT_FOUND


def test_an_answer_that_is_read_again_must_have_the_logits_of_its_single_tokens(monkeypatch):
    plain = shared.Decoder.run

    def run(self, batch):
        made = plain(self, batch)
        if any(len(rows.ids) > 2 and not rows.is_chunk for rows in batch):
            made.logits[...] *= 1.0001
        return made

    monkeypatch.setattr(shared.Decoder, "run", run)
    assert probe(TINY, "float32", properties("float32", 1)) == NOT_FOUND


@pytest.fixture
def elsewhere(monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")


@pytest.mark.slow
def test_on_other_processors_it_is_found_in_a_process_of_its_own(elsewhere, tmp_path, monkeypatch):
    module, ran, run = new_process(), [], subprocess.run

    def watched(command, **how):
        ran.append(command)
        return run(command, **how)

    monkeypatch.setattr(subprocess, "run", watched)
    module.probe = None
    found = find(module, tmp_path / "rows.json", TINY, "float32")
    assert found in LIMITS
    assert [command[0] for command in ran] == [sys.executable]
    monkeypatch.undo()
    assert found == probe(TINY, "float32", properties("float32", 1))


@pytest.fixture
def crashing(elsewhere, tmp_path, monkeypatch):
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho 64\necho it crashed >&2\nexit 139\n")
    program.chmod(stat.S_IRWXU)
    monkeypatch.setattr(sys, "executable", str(program))
    return program


def test_a_child_that_crashes_finds_none(crashing, tmp_path, caplog):
    assert find(new_process(), tmp_path / "rows.json") == NOT_FOUND
    assert "139" in caplog.text and "it crashed" in caplog.text
    crashing.unlink()  # it is not tried again
    assert find(new_process(), tmp_path / "rows.json") == NOT_FOUND


@pytest.mark.parametrize("program", ["#!/bin/sh\necho words\n", "#!/bin/sh\nexec sleep 300\n", "#!/bin/sh\n"])
def test_a_child_that_says_something_else_or_takes_too_long_finds_none(crashing, tmp_path, program):
    crashing.write_text(program)
    module = new_process()
    module.CHILD_SECONDS = 0.5
    assert find(module, tmp_path / "rows.json") == NOT_FOUND


def test_transformers_answers_where_there_is_none_and_the_log_says_why(crashing, monkeypatch, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(loader, "max_rows", lambda *asked: new_process().max_rows(*asked, tmp_path / "rows.json"))
    made = engine()
    assert made.loaded.plan.engine == "transformers"
    assert answer(made, SHORT).text
    [line] = [record.getMessage() for record in caplog.records if "OpenVINO refuses it" in record.getMessage()]
    assert line.startswith("Transformers runs budgie: ") and "the probe found no number of rows" in line
