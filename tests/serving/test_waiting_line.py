"""The waiting line: who is next is admitted when there is room, visitors take turns, a limit has its sentence."""

import asyncio
import threading
from collections import Counter, defaultdict
from contextlib import aclosing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parley.errors import TurnRefused
from parley.models import registry
from parley.serving import waiting_line
from parley.serving.waiting_line import Visitor, WaitingLine

ROOM = 4  # turns of a model that run at the same time
BUDGIE, PARROT = registry.find("budgie"), registry.find("parrot")  # one computes here, the other only waits


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(waiting_line, "POLL_SECONDS", 0)


def new_line(room=ROOM):
    return WaitingLine(lambda _: room)


def is_admitted(ticket):
    return ticket.admitted.is_set()


def test_the_turns_of_a_comparison_are_admitted_together():
    line = new_line()
    first = line.enter(Visitor("a turn"), [BUDGIE])
    six = line.enter(Visitor("six columns"), [BUDGIE] * 6)
    later = line.enter(Visitor("who comes later"), [BUDGIE])
    assert is_admitted(first) and not is_admitted(six), "there is room for some of them"
    assert not is_admitted(later), "the comparison is next, and keeps the room"
    assert (line.place(six).number, line.place(later).number) == (1, 2)
    line.leave(first)
    assert is_admitted(six), "with more columns than turns may run, which then run one after the other"
    assert line.num_running(BUDGIE) == 6 and not is_admitted(later)
    line.leave(six)
    assert is_admitted(later) and line.num_running(BUDGIE) == 1


def test_places_are_told_until_the_turn_is_admitted_and_closing_leaves_the_line():
    async def story():
        line, told = new_line(1), set()
        running = line.enter(Visitor("running"), [BUDGIE])

        async def waits(name):
            with line.enter(Visitor(name), [BUDGIE]) as ticket:
                async with aclosing(ticket.places()) as places:
                    async for place in places:
                        told.add((name, place.number))

        first, second = (asyncio.create_task(waits(name)) for name in ("first", "second"))
        while ("second", 2) not in told:
            await asyncio.sleep(0)
        first.cancel()
        while ("second", 1) not in told:
            await asyncio.sleep(0)
        assert line.num_waiting() == 1 and not second.done()
        line.leave(running)
        await second
        assert line.num_waiting() == line.num_running() == 0

    asyncio.run(story())


def test_more_room_is_seen_without_a_turn_that_ends():
    async def story():
        room = [1]
        line = WaitingLine(lambda _: room[0])
        line.enter(Visitor("running"), [BUDGIE])
        with line.enter(Visitor("waiting"), [BUDGIE]) as ticket:
            async with aclosing(ticket.places()) as places:
                async for _ in places:
                    room[0] = 2  # the model was loaded

    asyncio.run(story())


def test_a_visitor_runs_two_turns_whatever_the_model_and_waits_with_four():
    line, visitor = new_line(), Visitor("greedy")
    specs = [[BUDGIE], [PARROT], [PARROT], [BUDGIE], [BUDGIE] * 2, [PARROT]]
    tickets = [line.enter(visitor, each) for each in specs]
    assert [is_admitted(each) for each in tickets] == [True, True, False, False, False, False]
    with pytest.raises(
        TurnRefused, match=r"^4 of your answers wait already\. Press Retry in [1-9]\d* s\.$"
    ) as refused:
        line.enter(visitor, [BUDGIE])
    assert refused.value.code == "too_many"
    assert is_admitted(line.enter(Visitor("another"), [BUDGIE])), "nobody is kept out by them"
    line.leave(tickets[0])
    assert is_admitted(tickets[2])
    line.enter(visitor, [BUDGIE])


def test_thirty_sessions_at_one_address_all_get_turns():
    line = new_line(room=32)
    tickets = [line.enter(Visitor(f"pupil {n}", "192.0.2.1"), [BUDGIE]) for n in range(30)]
    assert all(map(is_admitted, tickets))


LIMITS = {
    "TURNS_PER_ADDRESS": ("too_many", "2 answers of your network run or wait already."),
    "TURNS_PER_MINUTE": ("too_often", "You asked 2 times within a minute."),
    "WAITING_PER_VISITOR": ("too_many", "2 of your answers wait already."),
    "MAX_WAITING_TURNS": ("busy", "2 people are waiting already."),
}


@pytest.mark.parametrize("name", LIMITS)
def test_each_limit_holds_at_its_bound_with_its_sentence(name, monkeypatch):
    monkeypatch.setenv(name, "2")
    code, sentence = LIMITS[name]
    line = new_line(1)
    if name in ("WAITING_PER_VISITOR", "MAX_WAITING_TURNS"):
        line.enter(Visitor("running"), [BUDGIE])
    visitor = Visitor("visitor", "192.0.2.1")
    tickets = [line.enter(visitor, [BUDGIE]) for _ in range(2)]
    waiting, running = line.num_waiting(), line.num_running()
    with pytest.raises(TurnRefused) as refused:
        line.enter(visitor, [BUDGIE])
    assert str(refused.value) == f"{sentence} Press Retry in {refused.value.retry_seconds} s."
    assert refused.value.code == code and refused.value.retry_seconds in range(1, 61)  # told, and not waited for
    assert (line.num_waiting(), line.num_running()) == (waiting, running), "nothing is left of it"
    if name == "TURNS_PER_ADDRESS":
        line.enter(Visitor("visitor", "192.0.2.2"), [BUDGIE])
    if name != "TURNS_PER_MINUTE":
        line.leave(tickets[1])
        line.enter(visitor, [BUDGIE])


def test_a_minute_later_one_may_ask_again(monkeypatch):
    from tests.conftest import Clock

    clock = Clock()
    monkeypatch.setattr(waiting_line, "time", clock)
    monkeypatch.setenv("TURNS_PER_MINUTE", "1")
    line = new_line()
    line.enter(Visitor("visitor"), [BUDGIE])
    with pytest.raises(TurnRefused):
        line.enter(Visitor("visitor"), [BUDGIE])
    clock.ahead = 61
    line.enter(Visitor("visitor"), [BUDGIE])
    clock.ahead = 122
    line.enter(Visitor("another"), [BUDGIE])
    assert set(line._recent) == {"another"}, "who has not asked for a minute is forgotten"


def test_as_many_turns_run_as_the_owner_allows(monkeypatch):
    monkeypatch.setenv("MAX_TURNS", "2")
    line = new_line()
    tickets = [line.enter(Visitor(str(n)), [PARROT]) for n in range(3)]
    assert [is_admitted(each) for each in tickets] == [True, True, False]


def test_who_has_waited_for_the_longest_time_is_told_when_to_come_back(monkeypatch):
    from tests.conftest import Clock

    clock = Clock()
    monkeypatch.setattr(waiting_line, "time", clock)
    monkeypatch.setenv("MAX_WAIT_SECONDS", "30")

    async def story():
        line = new_line(1)
        line.enter(Visitor("running"), [BUDGIE])
        with line.enter(Visitor("waiting"), [BUDGIE]) as ticket:
            async for place in ticket.places():
                assert place.number == 1
                clock.ahead += 29
                if clock.ahead > 60:
                    raise AssertionError("it waits for ever")

    with pytest.raises(TurnRefused, match=r"^No place became free in time\. Press Retry in \d+ s\.$") as refused:
        asyncio.run(story())
    assert refused.value.code == "busy"


def test_the_expected_time_is_learned_from_the_turns_that_end(monkeypatch):
    from tests.conftest import Clock

    clock = Clock()
    monkeypatch.setattr(waiting_line, "time", clock)
    line = new_line(2)
    for ticket in [line.enter(Visitor(str(n)), [BUDGIE]) for n in range(2)]:
        clock.ahead += 40
        line.leave(ticket)
    for n in range(2):
        line.enter(Visitor(f"running {n}"), [BUDGIE])
    waiting = [line.enter(Visitor(f"waiting {n}"), [BUDGIE]) for n in range(3)]
    assert [line.place(each).number for each in waiting] == [1, 2, 3]
    assert [line.place(each).seconds for each in waiting] == pytest.approx([24, 48, 72], abs=2)


def test_when_the_app_ends_nobody_is_admitted_any_more():
    ends = threading.Event()
    line = WaitingLine(lambda _: 1, ends)
    running, waiting = (line.enter(Visitor(name), [BUDGIE]) for name in ("running", "waiting"))
    ends.set()
    line.leave(running)
    assert not is_admitted(waiting)
    with pytest.raises(TurnRefused, match="The app is being restarted") as refused:
        line.enter(Visitor("late"), [BUDGIE])
    assert refused.value.code == "stopping"
    with pytest.raises(TurnRefused, match="The app is being restarted"):
        asyncio.run(anext(waiting.places()))


VISITORS = st.sampled_from("abcd")
STEPS = st.lists(st.tuples(st.sampled_from(("ask", "compare", "end", "give up")), VISITORS), max_size=80)


@settings(max_examples=300, deadline=None)
@given(STEPS, st.integers(1, 5))
def test_the_line_is_fair_whatever_happens(steps, room):
    """Nobody who may run is passed twice by the same visitor, limits hold, and no room is left while one may run."""
    line, tickets = new_line(room), []
    passed = defaultdict(Counter)  # by ticket that is first of its visitor: who was admitted since
    for step, name in steps:
        before = [each for each in tickets if not is_admitted(each)]
        first_before = {each.visitor.name: each for each in reversed(before)}
        mine = [each for each in tickets if each.visitor.name == name]
        if step in ("ask", "compare"):
            try:
                tickets.append(line.enter(Visitor(name), [BUDGIE] * (3 if step == "compare" else 1)))
            except TurnRefused as refusal:
                assert refusal.code == "too_many" and len([e for e in mine if not is_admitted(e)]) == 4
        else:
            chosen = [each for each in mine if is_admitted(each) == (step == "end")]
            if chosen:
                tickets.remove(chosen[0])
                passed.pop(chosen[0], None)
                line.leave(chosen[0])
        check_limits(line, tickets, room)
        waiting = [each for each in tickets if not is_admitted(each)]
        firsts = {each.visitor.name: each for each in reversed(waiting)}
        admitted = [each for each in before if each in tickets and is_admitted(each)]
        running = Counter(each.visitor.name for each in tickets if is_admitted(each))
        for first in firsts.values():
            if running[first.visitor.name] >= 2:
                passed.pop(first, None)  # they wait for a turn of their own
                continue
            if first_before.get(first.visitor.name) is first:  # else it became the first one among these
                passed[first].update(each.visitor.name for each in admitted)
            assert all(count <= 1 for count in passed[first].values()), "a visitor came twice before this one"


def check_limits(line, tickets, room):
    running, waiting = ([e for e in tickets if is_admitted(e) == state] for state in (True, False))
    own = Counter(each.visitor.name for each in running)
    assert all(count <= 2 for count in own.values())
    assert line.num_waiting() == len(waiting) and all(
        count <= 4 for count in Counter(each.visitor.name for each in waiting).values()
    )
    taken = [each.needs[BUDGIE] for each in running]
    assert sum(min(each, room) for each in taken) <= room and line.num_running(BUDGIE) == sum(taken)
    free = room - sum(taken)
    willing = [each for each in waiting if own[each.visitor.name] < 2]
    if willing:
        first = min(willing, key=lambda each: line.place(each).number)
        assert min(first.needs[BUDGIE], room) > free, "there is room for who is next"
    places = sorted(line.place(each).number for each in waiting)
    assert places == list(range(1, len(waiting) + 1))
