"""The figures of docs/benchmarks.md are those that were measured, and what is measured agrees with itself."""

import contextlib
import json
import shutil

import pytest

from benchmarks import __main__ as benchmarks
from benchmarks import chart, decoding, engines, measures, memory, models, peers, processor
from benchmarks.figures import FIGURES
from benchmarks.measures import Row
from parley import events
from parley.generation.loaded_model import LoadedModel
from tests.conftest import lacking
from tests.standins.hub import save_tiny_model

RESULTS = json.loads(benchmarks.RESULTS.read_text("utf-8"))
ROWS = [Row(**row) for row in RESULTS["rows"] + RESULTS["many"]["rows"]]
MACHINE = {
    "processor": "A Processor",
    "threads": 2,
    "features": {"avx2": True, "avx512_vnni": False, "avx_vnni": False, "amx": False},
    "versions": {"openvino": "1.0"},
}


@pytest.mark.parametrize(
    ("name", "part"), [("figures", benchmarks.part(RESULTS)), ("many", benchmarks.many_part(RESULTS["many"]))]
)
def test_the_page_shows_what_was_measured(name, part):
    shown = benchmarks.PAGE.read_text("utf-8").split(f"<!-- {name} -->\n")[1].split(f"\n<!-- end of {name} -->")[0]
    assert shown == part, "run python -m benchmarks"


def test_everything_that_has_a_meaning_was_measured():
    if not RESULTS["many"]["rows"]:
        lacking("no figures of many chats yet: run python -m benchmarks --many")
    assert {row.name for row in ROWS} == set(FIGURES)


def test_each_ratio_lies_within_its_spread_and_fits_its_figures():
    for row in ROWS:
        if row.baseline is None:
            assert row.ratio is row.low is row.high is None, row
        else:
            assert row.low <= row.ratio <= row.high, row
            quotient = measures.ratio(row.unit, row.ours, row.baseline)
            assert row.low * 0.99 <= quotient <= row.high * 1.01, row


def test_a_figure_is_the_median_of_the_rounds():
    made = measures.row("decode_vs_plain", "a model", "tokens/s", [(20, 10), (90, 10), (30, 10)])
    assert (made.ours, made.baseline, made.ratio, made.low, made.high) == (30, 10, 3, 2, 9)
    made = measures.row("prefill_vs_plain", "a model", "s", [(2, 10)])
    assert made.ratio == 5
    assert measures.alone("start", "a model", "s", [3, 1, 2]) == Row("start", "a model", "s", 2)


def test_the_first_round_only_warms_up():
    count = iter(range(6))
    taken = measures.in_turn(2, {"ours": lambda: next(count), "theirs": lambda: next(count)})
    assert taken == [{"ours": 2, "theirs": 3}, {"ours": 4, "theirs": 5}]
    assert measures.beside(taken, "theirs", "ours") == [(3, 2), (5, 4)]


def test_each_figure_is_measured_by_one_group_and_each_group_has_one():
    assert {benchmarks.group_of(name) for name in FIGURES} == set(benchmarks.GROUPS)
    assert benchmarks.group_of("talking") == "talking" and benchmarks.group_of("loglik_openvino") == "exam"


def test_figures_are_chosen_by_their_names_their_groups_and_their_beginnings():
    assert benchmarks.chosen(["copying"]) == ["copying"]
    assert benchmarks.chosen(["beams"]) == ["beams_vs_greedy"]
    assert benchmarks.chosen(["load"]) == ["load", "load_with_probe"]
    assert benchmarks.chosen(["exam", "exam_openvino"]) == [n for n in FIGURES if n.startswith(("exam", "loglik"))]
    assert set(benchmarks.chosen(benchmarks.GROUPS)) == set(FIGURES)
    with pytest.raises(ValueError, match="nothing is called nonsense; the groups are decode"):
        benchmarks.chosen(["nonsense"])


def test_only_what_was_chosen_is_measured(budgie):
    run = benchmarks.Run(models=None, rounds=1, names=["dola_vs_greedy", "early_exit_vs_stock", "next_turn_1024"])
    assert run.among(decoding.SETTINGS) == ["dola"]
    assert run.among(decoding.DRAFTING) == ["early_exit"]
    assert run.lengths == [1024]


@pytest.mark.parametrize(
    ("name", "row", "verdict"),
    [
        ("beams_vs_greedy", Row("", "a model", "tokens/s", 6, 10, 0.6, 0.5, 0.7), "as asked: a ratio of 0.6 at least"),
        ("beams_vs_greedy", Row("", "a model", "tokens/s", 5, 10, 0.5, 0.5, 0.7), "MISSED: a ratio of 0.6 at least"),
        ("budgie_engine", Row("", "Budgie", "tokens/s", 399, 10, 40, 40, 40), "MISSED: 400 at least"),
        ("load", Row("", models.SMOLLM2, "s", 5.1), "MISSED"),
        ("memory_held", Row("", "a model", "MB", 519, 100, 5, 5, 5), "as asked"),
        ("memory_held", Row("", "a model", "MB", 521, 100, 5, 5, 5), "MISSED"),
        ("prefill_vs_llamacpp_q8", Row("", "another model", "s", 5, 1, 0.2, 0.2, 0.2), ""),
        ("start", Row("", "Budgie", "s", 99), ""),
    ],
)
def test_a_figure_is_compared_with_what_was_asked_of_it(name, row, verdict):
    told = FIGURES[name].verdict(row)
    assert told.startswith(verdict) and bool(told) == bool(verdict)


def test_the_readme_says_on_what_was_measured():
    row = measures.row("start", "Budgie", "s", [(2, 10)])
    shown = benchmarks.part({"machine": MACHINE, "rows": [row.__dict__]})
    assert f"| {FIGURES['start'].meaning} | Budgie | 2 s | 10 s | 5.00 |" in shown
    assert shown.endswith("A Processor, with 2 threads, avx2 but no avx512_vnni, avx_vnni, amx; openvino 1.0.")


def test_the_processor_is_read_from_what_the_kernel_says(tmp_path):
    told = tmp_path / "cpuinfo"
    told.write_text("processor\t: 0\nmodel name\t: A Processor\nflags\t\t: fpu avx2 avx512_vnni amx_tile\n\n")
    known = processor.describe(told)
    assert known["processor"] == "A Processor"
    assert known["features"] == {"avx2": True, "avx512_vnni": True, "avx_vnni": False, "amx": True}
    assert known["threads"] >= 1 and known["versions"]["torch"]
    assert processor.describe(tmp_path / "none")["processor"]


def test_stock_generate_gives_the_tokens_that_were_asked_for(torch_budgie):
    loaded: LoadedModel = torch_budgie.loaded
    with measures.endless(loaded):
        usage = measures.stock(loaded, measures.question("Hello"), 40)
        drafted = measures.stock(loaded, measures.question("Hello"), 40, strategy="prompt_lookup")
    assert usage.new_tokens == drafted.new_tokens == 40
    assert 0 < usage.time_to_first_token < usage.seconds
    assert measures.stock(loaded, measures.question("Hello"), 40).new_tokens < 40  # it ends by itself


def test_plain_generate_with_fewer_threads_is_no_comparison(torch_budgie, monkeypatch):
    monkeypatch.setattr(measures.hardware, "cpu_threads", lambda: 99)
    with pytest.raises(RuntimeError, match="not 99"):
        measures.stock(torch_budgie.loaded, measures.question("Hello"), 4)


def test_without_drafts_the_text_is_the_same_and_nothing_is_drafted(budgie):
    asked = measures.question("Repeat: one two three one two three one two three one two three")
    with measures.endless(budgie.loaded):
        drafting = measures.ask(budgie, asked, 60)
        with measures.without_drafts():
            plain = measures.ask(budgie, asked, 60)
    assert drafting.usage.drafted > 0 == plain.usage.drafted
    assert drafting.text == plain.text and plain.usage.new_tokens == 60


def test_a_history_has_the_length_that_was_asked_for(budgie):
    talk = [*measures.history(budgie.loaded, 300), *measures.question()]
    assert 300 <= measures.prompt(budgie.loaded, talk, 1).length < 400


def test_what_was_copied_is_counted_in_its_order():
    words = decoding.PASSAGE.split()
    assert decoding.copied(decoding.PASSAGE) == 1
    assert decoding.copied("Here it is: " + " ".join(words[: len(words) // 2])) == pytest.approx(0.5, abs=0.05)
    assert decoding.copied(" ".join(reversed(words))) < 0.2


class Small(models.Models):
    """Budgie in place of every model."""

    smollm2 = property(lambda self: self.budgie)


@pytest.fixture
def small(tmp_path, budgie, torch_budgie):
    made = Small(tmp_path)
    made.budgie.engine, made.budgie.plain = budgie, torch_budgie.loaded
    return made


@pytest.mark.slow
@pytest.mark.parametrize("group", ["decode", "strategies", "drafts", "talking_sampling"])
def test_a_group_gives_the_figures_that_it_has(group, small, monkeypatch):
    monkeypatch.setattr(decoding, "NEW", 8)
    monkeypatch.setattr(decoding, "TALK_NEW", 8)
    monkeypatch.setattr(events, "MIN_DECODE_SECONDS", 0.0)  # so few tokens take a fast machine no time
    names = [name for name in benchmarks.chosen([group]) if "universal" not in name]  # Budgie has its own tokenizer
    run = benchmarks.Run(small, 1, names, shapes=False)
    measured = list(benchmarks.rows(run))
    assert {row.name for row in measured} == {name for name in run.names if "llamacpp" not in name}
    assert all(row.ours > 0 and row.ratio > 0 for row in measured)


@pytest.mark.slow
def test_each_engine_is_measured_and_the_plan_among_them(small, monkeypatch):
    monkeypatch.setattr(engines, "PROMPT", 64)
    measured = list(engines.compare(small, 1))
    ways = {row.model for row in measured if row.name == "engine_decode"}
    threads = models.load_plan.machine().threads
    assert len(ways) == 2 * threads + 2
    assert f"Budgie, openvino float32, {threads} thread{'s' if threads > 1 else ''}" in ways
    assert [row.name for row in measured].count("plan") == 1


@pytest.mark.slow
def test_the_memory_of_a_model_is_seen_to_come_and_go(tmp_path):
    if not benchmarks.Path("/proc/self/status").is_file():
        pytest.skip("only Linux tells it")
    folder = save_tiny_model(tmp_path / "model", hidden_size=256, num_hidden_layers=4)
    seen = memory.measure(folder, str(tmp_path / "home"))
    bytes_of_floats = (folder / "model.safetensors").stat().st_size
    assert seen.parameters == pytest.approx(bytes_of_floats / 4 / 1e6, rel=0.01)
    assert seen.peak > seen.parameters and seen.empty > 50 and seen.seconds > 0 and seen.pool > 0
    assert seen.left < seen.held


def test_a_process_that_fails_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(memory.sys, "executable", "false")
    with pytest.raises(RuntimeError, match="the process that was to be measured ended"):
        memory.measure(tmp_path / "none", str(tmp_path / "home"))


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


@pytest.mark.slow
@with_llama_cpp
def test_llama_cpp_tells_what_an_answer_cost_and_what_it_cannot_take(tmp_path):
    folder = save_tiny_model(tmp_path / "model")
    with contextlib.closing(peers.LlamaCpp(peers.write(folder, tmp_path)["q8"], context=256)) as peer:
        with pytest.raises(RuntimeError, match="250 and 7 tokens are more than the context of 256"):
            peer.answer([5] * 250, 7)
        usage = peer.answer([5] * 250, 6)
    assert (usage.prompt_tokens, usage.new_tokens) == (250, 6)
    assert 0 < usage.time_to_first_token < usage.seconds


@pytest.mark.slow
@with_llama_cpp
def test_a_file_that_llama_cpp_cannot_read_is_an_error(tmp_path):
    with pytest.raises(RuntimeError, match="its process ended"):
        peers.LlamaCpp(tmp_path / "none.gguf")


def test_without_node_llama_cpp_is_left_out(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "needs Node.js" in peers.missing()


@pytest.mark.slow
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
