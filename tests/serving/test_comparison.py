"""A comparison: its columns are what they would be alone, and no prompt is read twice."""

import io
import math
import pickle
import threading
from collections import defaultdict
from contextlib import contextmanager

import pytest

from parley.engines import loader
from parley.engines.base import TurnRequest
from parley.errors import BadSetting
from parley.events import STATUSES, Answer, Figures
from parley.messages import Message
from parley.serving import comparison, turn
from parley.serving.column_batch import Column
from parley.serving.model_pool import ModelPool
from parley.settings import Settings
from parley.strategies import STRATEGIES

QUESTION = [
    Message("system", "Answer like a pirate, and be brief."),
    Message("user", "My name is Maya and I sail a ship from Lisbon to the far north. " * 3),
    Message("assistant", "Ahoy, Maya! The far north is cold, and the nights there are long."),
    Message("user", "Tell me a story about an owl and a lamp by the river."),
]


def columns_of(*values, messages=QUESTION):
    usual = {"model": "budgie", "strategy": "greedy", "max_new_tokens": 16, "seed": 5}
    return [Column(number, messages, Settings.check(usual | each)) for number, each in enumerate(values)]


class Seen:
    """What came of a comparison, by column."""

    def __init__(self, events, look=lambda seen: None):
        self.answers, self.figures = defaultdict(Answer), defaultdict(Figures)
        self.errors, self.notices, self.scored_by, self.order = {}, [], "", []
        for event in events:
            if event.delta:
                self.answers[event.column] += event.delta
                self.order.append(event.column)
            if event.error:
                self.errors[event.column] = event.error
            if event.figures:
                self.figures[event.column] |= event.figures
            self.notices += [event.notice] if event.notice else []
            self.scored_by = event.scored_by or self.scored_by
            look(self)


def seen(columns, **how):
    return Seen(comparison.compare("a run", columns, **how))


def alone(column):
    return sum(turn.reply("alone", column.messages, column.settings), Answer())


@contextmanager
def chunks(name="budgie"):
    """The numbers of tokens that are read in chunks, as prompts are and answers are not."""
    with turn.POOL.lease(turn.registry.find(name), lambda _: None, threading.Event()) as engine:
        decoder, read = engine.loaded.model.decoder, []
        run = decoder.run

        def watched(inputs):
            read.extend(len(each.ids) for each in inputs if each.is_chunk)
            return run(inputs)

        decoder.run = watched
        try:
            yield read
        finally:
            del decoder.run


SIX = ({}, {"strategy": "sampling"}, {"strategy": "beams"}, {"strategy": "diverse_beams"}, {"strategy": "dola"})
SIX += ({"strategy": "prompt_lookup"},)


def test_one_reading_of_the_prompt_serves_all_columns_and_each_is_what_it_would_be_alone():
    columns = columns_of(*SIX)
    expected = [alone(each).ids for each in columns]
    with chunks() as read:
        found = seen(columns)
    assert [found.answers[n].ids for n in range(6)] == expected
    prompt = found.answers[0].usage.prompt_tokens
    assert prompt > 100
    own = 2  # the last tokens of the prompt, which each column reads for their logits, and again to be scored
    assert sum(read) == prompt - own + own * 2 * len(columns)
    assert {found.answers[n].usage.cached_tokens for n in range(6)} == {prompt - own}
    assert not turn.running()


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_column_of_any_strategy_is_what_it_would_be_alone(strategy):
    if STRATEGIES[strategy].cross_tokenizer:
        pytest.skip("Budgie's draft has its tokenizer")
    values = {"strategy": strategy, "force_words": "lantern", "exit_layer": 3}
    columns = columns_of(values, {}, values | {"max_new_tokens": 12})
    expected = [alone(each).ids for each in columns]
    assert [seen(columns).answers[n].ids for n in range(3)] == expected


def test_prompts_that_differ_are_read_once_each():
    columns = columns_of({}, {"seed": 6}, {"system_prompt": "x"}, {"strategy": "contrastive"})
    other = [Message("system", "Speak like a queen."), *QUESTION[1:]]
    columns[2] = Column(2, other, columns[2].settings)
    with chunks() as read:
        found = seen(columns)
    prompts = [found.answers[n].usage.prompt_tokens for n in range(4)]
    assert prompts[0] == prompts[1] == prompts[3] != prompts[2]
    own = 2  # see above
    assert sum(read) == prompts[0] + prompts[2] - 2 * own + 2 * own * len(columns), "contrastive search, too"


def test_a_negative_prompt_is_read_once_too():
    guided = {"guidance_scale": 1.5, "negative_prompt": "You are a very rude bird who says no to everybody. " * 3}
    columns = columns_of(guided, guided | {"strategy": "sampling"})
    expected = [alone(each).ids for each in columns]
    with chunks() as read:
        found = seen(columns)
    with chunks() as read_alone:
        alone(columns[0])
    assert [found.answers[n].ids for n in range(2)] == expected
    assert sum(read) < 1.2 * sum(read_alone)


def test_the_figures_are_those_of_the_model_and_of_the_text():
    found = seen(columns_of({"max_new_tokens": 40}, {"strategy": "sampling", "temperature": 1.5}))
    with turn.POOL.lease(turn.registry.find("budgie"), lambda _: None, threading.Event()) as engine:
        for number in range(2):
            answer, figures = found.answers[number], found.figures[number]
            request = TurnRequest.of(QUESTION, columns_of({})[0].settings, threading.Event())
            scores = engine.scores(request, answer.ids)
            assert figures.logprob == pytest.approx(sum(each.logprob for each in scores) / len(scores), abs=1e-5)
            assert 0 < figures.distinct_2 <= 1 and figures.words > 5
    assert found.figures[0].logprob > found.figures[1].logprob
    assert found.figures[0].bits_per_byte is None and not found.scored_by


def test_models_with_other_tokens_are_scored_by_one_of_them():
    found = seen(columns_of({"model": "parrot"}, {}))
    assert found.scored_by == turn.registry.find("budgie").label
    assert found.figures[0].logprob is None and found.figures[1].logprob < 0
    assert all(0 < found.figures[n].bits_per_byte < 20 for n in range(2))
    assert math.isfinite(found.figures[0].bits_per_byte)


def test_an_error_ends_its_column_alone():
    columns = columns_of({}, {"reasoning_effort": "high"}, {"seed": 6})
    found = seen(columns)
    assert list(found.errors) == [1] and "reasoning effort" in found.errors[1]
    assert found.answers[0].ids == found.answers[2].ids and found.answers[0].finish


def test_a_bug_in_a_column_is_explained_or_raised(monkeypatch):
    with turn.POOL.lease(turn.registry.find("budgie"), lambda _: None, threading.Event()) as engine:
        monkeypatch.setattr(type(engine), "_origin", lambda *_: 1 / 0)
        told = []
        found = seen(columns_of({}, {}), explain=lambda error: told.append(error) or "It broke.")
        assert found.errors == {0: "It broke.", 1: "It broke."} and isinstance(told[0], ZeroDivisionError)
        with pytest.raises(ZeroDivisionError):
            seen(columns_of({}, {}))
    assert not turn.running()


@pytest.fixture
def talker(endless_folder, monkeypatch):
    monkeypatch.setenv("MODEL_IDS", f"budgie,{endless_folder},parrot")
    monkeypatch.setattr(turn, "POOL", ModelPool())
    return {"model": "endless", "max_new_tokens": 4000}


def test_stop_ends_one_column_or_all(talker):
    columns = columns_of(talker, talker | {"strategy": "sampling"}, talker | {"strategy": "beams"})
    pressed = []

    def press(found):
        if not pressed and len({*found.order}) == 3 and found.answers[1].text:
            pressed.append(comparison.stop("a run", columns, 1))
        if len(pressed) == 1 and found.answers[1].finish and found.answers[0].text:
            pressed.append(comparison.stop("a run", columns))

    found = Seen(comparison.compare("a run", columns), press)
    assert pressed == [True, True]
    assert {found.answers[n].finish for n in range(3)} == {"stopped"}
    assert len(found.answers[1].ids) < len(found.answers[0].ids) or found.answers[1].text
    assert all(found.figures[n].logprob for n in range(3)), "what is there is measured"


def test_who_leaves_ends_all(talker):
    events = comparison.compare("a run", columns_of(talker, talker))
    while not next(events).delta:
        pass
    events.close()
    assert not turn.running()


def test_models_without_room_together_run_one_after_the_other(talker, monkeypatch):
    budgie, endless = (turn.registry.find(name) for name in ("budgie", "endless"))
    plans = {}
    choose = loader._fitting

    def noted(estimate):
        plans[estimate.label] = estimate.plan
        return choose(estimate)

    monkeypatch.setattr(loader, "_fitting", noted)
    pool = ModelPool()
    for spec in (budgie, endless):
        with pool.lease(spec, lambda _: None, threading.Event()):
            pass
    need = max(plan.need for plan in plans.values())
    monkeypatch.setattr(turn, "POOL", ModelPool(lambda _: int(1.5 * need) - sum(turn.POOL.loaded.values())))
    found = seen(columns_of(talker | {"max_new_tokens": 8}, {}, {"model": "budgie", "seed": 7}))
    assert found.errors == {}
    assert found.notices == [STATUSES["one_by_one"].format(first="endless", second=budgie.label)]
    assert all(found.answers[n].ids for n in range(3))
    assert found.order.index(1) > max(at for at, column in enumerate(found.order) if column == 0)
    assert set(turn.POOL.loaded) == {"budgie"}


def test_a_comparison_has_two_to_six_columns():
    for count in (0, 1, 7):
        with pytest.raises(BadSetting, match="2 to 6 columns"):
            comparison.check([None] * count)


def test_all_that_crosses_the_process_line_is_plain_data():
    columns = columns_of({}, {"strategy": "beams"})
    events = list(comparison.compare_in_worker("a run", columns, "", (), 60))
    assert Seen(iter(events)).figures[1].logprob
    for value in (*events, columns):
        modules = set()

        class Reader(pickle.Unpickler):
            def find_class(self, module, name):
                modules.add(module)  # noqa: B023
                return super().find_class(module, name)

        assert Reader(io.BytesIO(pickle.dumps(value))).load() == value
        assert modules <= {"parley.events", "parley.messages", "parley.settings", "parley.serving.column_batch"}
