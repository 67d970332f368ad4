"""The figures of the README are those that were measured, and what is measured agrees with itself."""

import contextlib
import json
import shutil

import pytest

from benchmarks import __main__ as benchmarks
from benchmarks import chart, measures, peers
from benchmarks.measures import Row
from tests.hub_standin import save_tiny_model
from tests.test_readme import TEXT

ROWS = [Row(**row) for row in json.loads(benchmarks.RESULTS.read_text("utf-8"))]


def test_the_readme_shows_what_was_measured():
    shown = TEXT.split("<!-- figures -->\n")[1].split("\n<!-- end of figures -->")[0]
    assert shown == benchmarks.table(ROWS), "run python -m benchmarks"


def test_everything_that_has_a_meaning_was_measured():
    assert {row.name for row in ROWS} == set(benchmarks.MEANINGS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.name} {row.model}")
def test_a_ratio_lies_within_its_spread_and_fits_its_figures(row):
    if row.baseline is None:
        assert row.ratio is row.low is row.high is None
        return
    assert row.low <= row.ratio <= row.high
    quotient = measures.ratio(row.unit, row.ours, row.baseline)
    assert row.low * 0.99 <= quotient <= row.high * 1.01


def test_a_figure_is_the_median_of_the_rounds():
    made = measures.row("decode_vs_plain", "a shape", "tokens/s", [(20, 10), (90, 10), (30, 10)])
    assert (made.ours, made.baseline, made.ratio, made.low, made.high) == (30, 10, 3, 2, 9)
    made = measures.row("start", "a shape", "s", [(2, 10)])
    assert made.ratio == 5


def test_the_first_round_only_warms_up():
    assert measures.in_turn(2, lambda n: n, lambda n: -n) == [(1, -1), (2, -2)]


def test_the_chart_draws_a_point_for_each_turn():
    drawn = chart.svg([(100, 0.1, 0.2), (200, 0.1, 0.4), (300, 0.1, 0.6)])
    whole = drawn.split('class="whole" d="M')[1].split('"')[0]
    heights = [float(point.split(",")[1]) for point in whole.split("L")]
    assert len(heights) == 3 and heights == sorted(heights, reverse=True)


@pytest.mark.parametrize(("kind", "tied"), [("Llama", True), ("Llama", False), ("Qwen3", True)])
def test_a_file_for_llama_cpp_holds_the_model_up_to_rounding(tmp_path, kind, tied):
    import torch
    from transformers import AutoModelForCausalLM

    folder = save_tiny_model(tmp_path / "model", kind, initializer_range=0.2, tie_word_embeddings=tied)
    read = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    off = {}
    for name, file in peers.write(folder, tmp_path).items():
        back = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=file.name, dtype=torch.float32)
        ids = torch.arange(100, 130)[None]
        with torch.inference_mode():
            want, got = (model(ids).logits for model in (read, back))
        off[name] = float((want - got).norm() / want.norm())
    assert 0 < off["q8"] < 0.05 < off["q4"] < 0.5


def test_a_model_that_cannot_be_written_for_llama_cpp_is_refused(tmp_path):
    folder = save_tiny_model(tmp_path / "model", "Mistral")
    with pytest.raises(ValueError, match="llama and qwen3"):
        peers.write(folder, tmp_path)


with_llama_cpp = pytest.mark.skipif(not peers.installed(), reason=f"{peers.PACKAGE} is not installed")


@with_llama_cpp
def test_llama_cpp_says_what_transformers_says(real_model, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    asked = AutoTokenizer.from_pretrained(real_model).apply_chat_template(
        [{"role": "user", "content": "Explain photosynthesis in one sentence."}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    model = AutoModelForCausalLM.from_pretrained(real_model, dtype=torch.float32)
    ids = asked["input_ids"][0].tolist()
    want = model.generate(**asked, max_new_tokens=8, do_sample=False)[0, len(ids) :].tolist()
    with contextlib.closing(peers.LlamaCpp(peers.write(model, tmp_path)["q8"])) as peer:
        assert [peer.continuation(ids, 8) for _ in range(2)] == [want, want]  # nothing is kept of an answer


@with_llama_cpp
def test_llama_cpp_tells_what_an_answer_cost_and_what_it_cannot_take(tmp_path):
    folder = save_tiny_model(tmp_path / "model")
    with contextlib.closing(peers.LlamaCpp(peers.write(folder, tmp_path)["q8"], context=256)) as peer:
        with pytest.raises(RuntimeError, match="250 and 7 tokens are more than the context of 256"):
            peer.answer([5] * 250, 7)
        usage = peer.answer([5] * 250, 6)
    assert (usage.prompt_tokens, usage.new_tokens) == (250, 6)
    assert 0 < usage.first_piece < usage.seconds


@with_llama_cpp
def test_a_file_that_llama_cpp_cannot_read_is_an_error(tmp_path):
    with pytest.raises(RuntimeError, match="its process ended"):
        peers.LlamaCpp(tmp_path / "none.gguf")


def test_without_node_llama_cpp_is_left_out(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "needs Node.js" in peers.missing()


@pytest.mark.skipif(not (shutil.which("node") and shutil.which("npm")), reason="npm is not installed")
def test_without_the_package_llama_cpp_is_left_out(monkeypatch, tmp_path):
    monkeypatch.setenv(peers.VARIABLE, str(tmp_path))
    assert f"{peers.VARIABLE} names {tmp_path}" in peers.missing()
    monkeypatch.delenv(peers.VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm"))
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9")
    assert "npm could not install" in peers.missing()
    assert not peers.home().exists()
