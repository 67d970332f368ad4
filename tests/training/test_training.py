"""A training of a few seconds learns, exports a folder that stock transformers loads, and can be resumed."""

import json

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from parley.budgie import WEIGHTS
from training import batches, train
from training.tokenizer import wrapped


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "CHUNK", 300)  # so that the first batch is there at once
    monkeypatch.setattr(train, "WARM_UP", 5)  # so that few steps show, also on a busy machine
    AutoTokenizer.from_pretrained(WEIGHTS).save_pretrained(tmp_path / "tokenizer")
    return tmp_path


def run(monkeypatch, work, seconds, *options):
    """The command line; gives the lines of progress so far."""
    command = ["train", "--work", str(work), "--minutes", str(seconds / 60), "--batch", "256", "--threads", "1"]
    monkeypatch.setattr("sys.argv", command + list(options))
    train.main()
    return [json.loads(line) for line in (work / "progress.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_it_learns_exports_and_resumes(monkeypatch, work):
    for seconds in (5, 30, 120):  # as long as this machine takes for some steps
        first, *_, last = run(monkeypatch, work, seconds, "--draft")
        if last["step"] > 10:
            break
        (work / "progress.jsonl").unlink()
    assert first["step"] == 1
    assert last["step"] > 10
    assert last["loss"] < first["loss"] - 0.2

    model, info = AutoModelForCausalLM.from_pretrained(work / "last", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    tokenizer = AutoTokenizer.from_pretrained(work / "last")
    text = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], return_tensors="pt", return_dict=True)
    assert model.generate(**text, max_new_tokens=3).shape[1] > text["input_ids"].shape[1]

    before = model.state_dict()
    for seconds in (3, 30, 120):
        resumed = run(monkeypatch, work, last["seconds"] + seconds, "--draft", "--resume")[-1]
        if resumed["step"] > last["step"] + 5:
            break
    assert resumed["step"] > last["step"] + 5 and resumed["tokens"] > last["tokens"]
    assert resumed["loss"] < last["loss"]
    after = AutoModelForCausalLM.from_pretrained(work / "last").state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_what_is_saved_comes_back(work, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(work / "tokenizer")
    one, two = (train.Run(train.new_model("draft", tokenizer), seconds=60) for _ in range(2))
    batch = next(batches.batches(tokenizer, 1, 512))
    one.step(batch)
    one.save(tmp_path / "state.pt")
    two.resume(tmp_path / "state.pt")
    assert two.progress == one.progress
    for run in (one, two):
        run.step(batch)
    assert all(torch.equal(a, b) for a, b in zip(one.model.parameters(), two.model.parameters(), strict=True))


def test_export_leaves_the_card_alone(work):
    tokenizer = AutoTokenizer.from_pretrained(work / "tokenizer")
    folder = work / "out"
    folder.mkdir()
    (folder / "README.md").write_text("the card")
    train.export(train.new_model("draft", tokenizer), tokenizer, folder)
    assert (folder / "README.md").read_text() == "the card"
    needed = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"}
    assert needed <= {file.name for file in folder.iterdir()}


def test_a_start_keeps_the_rows_of_known_tokens_and_begins_others_as_the_mean_of_their_parts(tmp_path):
    old = AutoTokenizer.from_pretrained(WEIGHTS)
    new = AutoTokenizer.from_pretrained(WEIGHTS)
    spare, known = max(new.get_vocab().items(), key=lambda item: len(item[0]))
    state = json.loads(new.backend_tokenizer.to_str())
    state["model"]["merges"] = [pair for pair in state["model"]["merges"] if "".join(pair) != spare]
    state["model"]["vocab"] |= {"qz": state["model"]["vocab"].pop(spare)}
    model = train.started(WEIGHTS, wrapped(Tokenizer.from_str(json.dumps(state))))
    table = model.get_input_embeddings().weight
    before = AutoModelForCausalLM.from_pretrained(WEIGHTS, dtype=torch.float32).get_input_embeddings().weight
    parts = [old.get_vocab()[letter] for letter in "qz"]
    torch.testing.assert_close(table[known], before[parts].mean(0))
    others = [place for place in range(len(before)) if place != known]
    assert torch.equal(table[others], before[others])
