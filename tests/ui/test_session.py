"""What a page needs to read its stream cannot be guessed, and nobody else can read with less."""

import re

import httpx2
import pytest

pytest_plugins = ["tests.browser"]
pytestmark = pytest.mark.slow


def test_the_name_of_a_session_has_128_random_bits(visit, inside):
    names = []
    for _ in range(2):
        visitor = visit()
        visitor.choose("model", "Parrot")
        visitor.ask("Hello")
        (name,) = visitor.sessions
        assert re.fullmatch("[0-9a-f]{32}", name)
        names.append(name)
        for guess in (name[:-1], name[1:], name[:-1] + ("0" if name[-1] != "0" else "1"), ""):
            answer = httpx2.get(f"{inside.url}/gradio_api/queue/data", params={"session_hash": guess})
            assert answer.status_code == 404 and "Nothing runs under this name." in answer.text
    assert len(set(names)) == 2
