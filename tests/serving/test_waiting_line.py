"""The waiting line: who is next is admitted when there is room for all of their turns."""

import asyncio
from contextlib import aclosing

from parley.serving import waiting_line
from parley.serving.waiting_line import WaitingLine


async def admitted(line, turns, order, name):
    async with aclosing(line.enter(lambda: 4, turns)) as places:
        async for _ in places:
            pass
    order.append(name)


def test_the_turns_of_a_comparison_are_admitted_together(monkeypatch):
    monkeypatch.setattr(waiting_line, "POLL_SECONDS", 0)

    async def story():
        line, order = WaitingLine(), []
        await admitted(line, 1, order, "a turn")
        six = asyncio.create_task(admitted(line, 6, order, "six columns"))
        while not line.num_waiting:
            await asyncio.sleep(0)
        two = asyncio.create_task(admitted(line, 1, order, "who comes later"))
        while line.num_waiting < 2:
            await asyncio.sleep(0)
        assert order == ["a turn"], "there is room for some of them, but they are next"
        line.leave()
        await six  # with more columns than turns may run, which then run one after the other
        assert order == ["a turn", "six columns"] and not two.done()
        line.leave(6)
        await two
        assert line.num_running == 1

    asyncio.run(story())
