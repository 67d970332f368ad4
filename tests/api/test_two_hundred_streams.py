"""Two hundred visitors ask at the same time, and sixty of them hang up. Each of the others gets a whole answer."""

from concurrent.futures import ThreadPoolExecutor

import httpx2
import psutil
import pytest

from parley.messages import Message
from tests.api.visitor import is_at_rest, question, values, visit
from tests.conftest import until
from tests.engines.openvino.asking import answer

pytestmark = pytest.mark.slow
VISITORS, AT_ONCE = 200, 32
FILES_TO_SPARE, MEGABYTES_TO_SPARE = 16, 150


def test_everyone_who_stays_gets_their_own_answer(inside):
    engine = inside.engine("budgie")
    expected = [answer(engine, [Message("user", question(n))], **values(n)).text for n in range(VISITORS)]
    assert len(set(expected)) > VISITORS / 2
    process = psutil.Process()
    with httpx2.Client(base_url=inside.url, timeout=250, limits=httpx2.Limits()) as http:
        with ThreadPoolExecutor(AT_ONCE) as first:  # whose keys and values stay in memory for the next ones
            list(first.map(lambda n: visit(http, n, leaves=False), range(AT_ONCE)))
        files, memory = process.num_fds(), process.memory_info().rss
        with ThreadPoolExecutor(VISITORS) as visitors:
            answers = list(visitors.map(lambda n: visit(http, n, leaves=n % 10 < 3), range(VISITORS)))
    for number, said in enumerate(answers):
        assert said is None if number % 10 < 3 else said == expected[number]
    until(lambda: is_at_rest(inside))
    until(lambda: process.num_fds() <= files + FILES_TO_SPARE)
    assert process.memory_info().rss < memory + MEGABYTES_TO_SPARE * 1e6
