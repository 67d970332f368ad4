"""How the tests of this folder reach the app that runs in their process."""

import httpx2
import pytest
from gradio_client import Client


@pytest.fixture(scope="module")
def client(inside):
    return Client(inside.url, verbose=False)


@pytest.fixture
def http(inside):
    with httpx2.Client(base_url=inside.url, timeout=90) as client:
        yield client
