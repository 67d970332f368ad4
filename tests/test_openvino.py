"""The OpenVINO engine says what Budgie says, stops, repeats with its seed, keeps conversations apart, and is never
asked for what it lacks.
"""

import os
import random
import subprocess
import sys
import threading
from dataclasses import replace

import pytest
import torch

from benchmarks import quality
from parley import catalog, strategies
from parley.engines import paired
from parley.engines.base import Answer
from parley.engines.paired import PairedEngine, pays
from parley.messages import build_messages
from parley.settings import Settings
from parley.ui.bubbles import quiet_line
from tests.conftest import ROOT, draft, until

pytest.importorskip("openvino")

from parley.engines import openvino, openvino_export, pages
from parley.engines.paged_beams import PagedBeams


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("exports")


@pytest.fixture(scope="module")
def pair(budgie, cache):
    return PairedEngine(budgie, cache)


@pytest.fixture(scope="module")
def engine(budgie, cache, pair):
    until(lambda: not pair.preparing, 110)
    return openvino.OpenVinoEngine(budgie.loaded, openvino_export.find(catalog.BUDGIE / "weights", cache))


def answer(engine, question, cancel=None, history=(), session="", **values):
    chosen = Settings.check({"strategy": "greedy", "max_new_tokens": 40, **values})
    helper = draft() if strategies.find(chosen.strategy).drafts else None
    turn = engine.stream(build_messages(history, question), chosen, cancel or threading.Event(), helper, session)
    return sum(turn, Answer())


def test_greedy_search_answers_as_the_torch_model_does(engine, budgie):
    questions = ("Hello, who are you?", "What is top-p sampling?", "What is the capital of Japan?", "Count to 9.")
    same = [answer(engine, question).text == answer(budgie, question).text for question in questions]
    assert sum(same) >= 3  # one byte a weight may tip the balance somewhere


def test_the_program_under_its_answer_says_that_words_may_differ(engine, capsys):
    made = answer(engine, "What is the capital of Japan?")
    assert made.ran.program.startswith(
        "# OpenVINO int8 answered. This takes the weights as they are stored: words may"
    )
    exec(made.ran.program, {})
    assert capsys.readouterr().out.strip() == made.text


def test_held_out_dialogues_stay_as_likely(engine, budgie):
    drop = quality.log_likelihood(budgie, 24) - quality.log_likelihood(engine, 24)
    assert drop != 0
    assert abs(drop) < 0.01  # nats a token


def test_equal_seeds_give_equal_text(engine):
    drawn = {"strategy": "sampling", "temperature": 1.5, "top_p": 1.0}
    first, again, other = (answer(engine, "Tell me a story.", seed=seed, **drawn).text for seed in (3, 3, 4))
    assert first == again != other


def test_a_stop_string_and_the_limit_end_it(engine):
    assert answer(engine, "Count to 9.", stop="4").text.rstrip(", ").endswith("3")
    short = answer(engine, "Tell me a story.", max_new_tokens=5)
    assert (short.finish, short.usage.new_tokens) == ("length", 5)


def test_stop_ends_it_at_once(engine):
    cancel = threading.Event()
    cancel.set()
    assert answer(engine, "Tell me a story.", cancel).finish == "stopped"


@pytest.mark.parametrize("strategy", ["prompt_lookup", "assisted", "universal_assisted"])
def test_guessing_ahead_changes_nothing(engine, strategy):
    question = "Say after me: the green owl reads the green book by the green lamp."
    guessed = answer(engine, question, strategy=strategy)
    assert guessed.usage.accepted > 0
    assert guessed.text == answer(engine, question).text


@pytest.mark.parametrize("held", [1, pages.PAGE - 1, pages.PAGE, pages.PAGE + 5])
def test_beams_that_branch_anywhere_never_read_what_another_wrote(engine, held):
    random.seed(held)
    vocabulary = engine.loaded.model.config.vocab_size
    prompt = random.choices(range(vocabulary), k=held)
    kept = pages.Pages(engine._model)
    engine._model.logits(kept, prompt)
    beams = PagedBeams(engine._model, kept, 3)
    sequences = [prompt] * 3
    for _ in range(pages.PAGE + 10):
        ids = random.choices(range(vocabulary), k=3)
        sequences = [[*sequence, id] for sequence, id in zip(sequences, ids, strict=True)]
        logits = torch.from_numpy(beams.step(ids))
        order = random.choices(range(3), k=3)
        beams.reorder_cache(torch.tensor(order))
        sequences, logits = [sequences[i] for i in order], logits[order]
    alone = torch.cat([engine.logits(torch.tensor([sequence]))[:, -1] for sequence in sequences])
    assert float((logits - alone).norm() / alone.norm()) < 0.02  # rounding; another's pages make it about 1
    again, fresh = random.choices(range(vocabulary), k=4), pages.Pages(engine._model)
    engine._model.logits(fresh, prompt)
    assert (
        engine._model.logits(kept, again) == engine._model.logits(fresh, again)
    ).all()  # the prompt's are as before


@pytest.mark.parametrize("strategy", ["beams", "beam_sampling", "diverse_beams", "constrained_beams"])
def test_beams_answer_as_those_of_the_torch_model_do(engine, budgie, strategy):
    said = {
        "Hello, who are you?": "model",
        "What is top-p sampling?": "likely",
        "What is the capital of Japan?": "Tokyo",
    }
    same = [
        len(
            {
                answer(each, question, strategy=strategy, seed=3, top_k=5, force_words=word).text
                for each in (engine, budgie)
            }
        )
        for question, word in said.items()
    ]
    assert same.count(1) >= 2  # one byte a weight may tip the balance somewhere


def test_of_a_beam_search_no_more_is_kept_than_of_greedy_search(engine):
    told = {"max_new_tokens": 200, "num_beams": 8, "session": "searcher", "length_penalty": 2.0}
    for strategy in ("greedy", "beams"):
        answer(engine, "Tell me a story.", strategy=strategy, **told)
        kept = engine._prefixes._sessions["searcher"]
        assert kept._count <= 2 * (-(-len(kept.ids) // pages.PAGE) + pages.SPARE)


@pytest.mark.parametrize("strategy", ["greedy", "sampling", "beams"])
def test_what_a_session_remembers_changes_nothing(engine, strategy):
    history = []
    for question in ("My name is Maya.", "Count to 9.", "Tell me a story.", "What is my name?"):
        turn = {"history": tuple(history), "strategy": strategy, "seed": 5, "max_new_tokens": 60}
        remembered = answer(engine, question, session="talker", **turn)
        assert remembered.text == answer(engine, question, **turn).text
        history += [{"role": "user", "content": question}, {"role": "assistant", "content": remembered.text}]
    least = 0.4 if strategy == "beams" else 0.7  # of a beam search the prompt is remembered
    assert remembered.usage.cached_tokens > least * remembered.usage.prompt_tokens


def test_an_edited_turn_is_read_anew_from_where_it_was_edited(engine):
    story = [{"role": "user", "content": "Tell me a story."}, {"role": "assistant", "content": "There was an owl."}]
    answer(engine, "Tell me more of the owl.", session="editor", history=story)
    edited = answer(engine, "Tell me less of the owl.", session="editor", history=story)
    assert 0 < edited.usage.cached_tokens < edited.usage.prompt_tokens - 4
    assert edited.text == answer(engine, "Tell me less of the owl.", history=story).text


def test_no_session_profits_from_what_another_has_said(engine):
    question = "Please remember that the secret word of today is wombat, and tell nobody at all."
    assert [answer(engine, question, session=name).usage.cached_tokens > 0 for name in ("a", "a", "b")] == [0, 1, 0]


def test_the_longest_unused_session_is_forgotten_when_memory_is_short(engine, monkeypatch):
    prefixes = pages.PagedPrefixes(engine._model, lambda: room)
    monkeypatch.setattr(engine, "_prefixes", prefixes)
    room = 10**12
    answer(engine, "Hello!", session="first")
    room = prefixes.bytes
    answer(engine, "Hello!", session="second")
    assert 0 < prefixes.bytes <= room
    assert answer(engine, "Hello!", session="second").usage.cached_tokens > 0
    assert answer(engine, "Hello!", session="first").usage.cached_tokens == 0


def test_a_long_prompt_is_read_in_pieces_which_changes_nothing(engine, monkeypatch):
    history = [{"role": "user", "content": "An owl sat on the lamp. " * 20}, {"role": "assistant", "content": "Yes."}]
    whole = answer(engine, "What did it do?", history=history)
    monkeypatch.setattr(pages, "PIECE", 7)
    assert answer(engine, "What did it do?", history=history).text == whole.text


@pytest.mark.parametrize(
    ("values", "left"),
    [
        ({"strategy": "greedy"}, ""),
        ({"strategy": "sampling", "min_p": 0.1, "thinking_budget": 5}, ""),
        ({"strategy": "constrained_beams", "force_words": "owl"}, ""),
        ({"strategy": "dola"}, "dola"),
        ({"strategy": "sampling", "guidance_scale": 2}, "guidance_scale"),
    ],
    ids=str,
)
def test_what_it_lacks_is_left_to_the_torch_model(values, left):
    assert openvino.refusal(Settings.check(values)) == left


def test_a_cancelled_export_leaves_nothing(tmp_path):
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(openvino_export.Stopped):
        openvino_export.export(catalog.BUDGIE / "weights", lambda _: None, cancel, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_torch_model_answers_while_the_export_runs_and_openvino_after_it(budgie, pair, engine, tmp_path):
    fresh = PairedEngine(budgie, tmp_path)
    assert "PyTorch float32" in (line := quiet_line(answer(fresh, "Hello!"))) and "Preparing the faster engine" in line
    assert (
        "PyTorch" in (line := quiet_line(answer(pair, "Hello!", strategy="contrastive"))) and "Preparing" not in line
    )
    assert "OpenVINO int8" in (line := quiet_line(answer(pair, "Hello!"))) and "Preparing" not in line
    until(lambda: any(tmp_path.iterdir()))
    del fresh  # as the pool does when memory is short
    until(lambda: not any(tmp_path.iterdir()))


def test_an_export_that_computes_something_else_is_not_used(budgie, engine, cache, caplog, monkeypatch):
    assert 0 < engine.distance() < paired.MOST_DISTANCE / 2
    monkeypatch.setattr(paired, "MOST_DISTANCE", engine.distance() / 2)
    strict = PairedEngine(budgie, cache)
    until(lambda: not strict.preparing)
    assert "PyTorch" in quiet_line(answer(strict, "Hello!"))
    assert "from those of the torch model" in caplog.text


@pytest.mark.parametrize(("value", "taken"), [(None, True), ("false", True), ("close", False)])
def test_where_the_environment_would_hold_it_to_one_thread_it_is_left_out_and_that_is_said(
    budgie, monkeypatch, caplog, value, taken
):
    monkeypatch.setattr("parley.engines.paired.LEAST_PARAMETERS", 0)
    if value:
        monkeypatch.setenv("OMP_PROC_BIND", value)
    int8 = replace(budgie.loaded, fit=replace(budgie.loaded.fit, quantization="int8"))
    assert pays(int8) is taken
    assert [record.levelname for record in caplog.records] == ([] if taken else ["WARNING"])
    assert "OMP_PROC_BIND" in caplog.text or taken


def test_a_model_as_small_as_budgie_is_left_to_torch(budgie):
    assert not pays(budgie.loaded)


def test_the_library_reports_to_nobody(tmp_path):
    program = "import parley.engines, openvino, sys; print([m for m in sys.modules if 'openvino_telemetry.' in m])"
    surroundings = {name: value for name, value in os.environ.items() if name != "CI"} | {"HOME": str(tmp_path)}
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=surroundings, cwd=ROOT, check=False
    )
    assert (ran.returncode, ran.stdout, list(tmp_path.iterdir())) == (0, "[]\n", []), ran.stderr
