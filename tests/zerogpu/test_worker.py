"""A turn on ZeroGPU: the app, the shipped client of `spaces`, forked workers, and a stand-in for the server."""

import itertools
import time

import pytest

from tests.conftest import until
from tests.zerogpu.conftest import ZeroGpuSpace

STORY = {"message": "Tell me a story about an owl.", "strategy": "greedy", "api_name": "/chat"}


@pytest.fixture(scope="module")
def zero(tmp_path_factory):
    running = ZeroGpuSpace(tmp_path_factory.mktemp("zerogpu"))
    yield running
    print(running.output())
    running.close()


@pytest.fixture(autouse=True)
def quiet(zero):
    """Every test leaves the GPU free and nobody waiting."""
    yield
    until(lambda: not zero.api.busy and not zero.api.line)


@pytest.fixture
def endless(zero):
    return {"message": "hello", "model": str(zero.endless), "max_new_tokens": 4000, "api_name": "/chat"}


def test_an_answer_streams_through_the_forked_worker_which_is_used_again(zero):
    client = zero.client()
    pieces = list(client.submit(**STORY))
    (worker,) = zero.api.pids
    assert len(pieces) > 3
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(pieces))
    assert client.predict(**STORY)
    assert zero.api.pids == [worker]
    assert len(zero.api.asked("/allow")) == 1


def test_cancel_releases_the_gpu(zero, endless):
    job = zero.client().submit(**endless)
    until(job.outputs)
    job.cancel()
    began = time.monotonic()
    until(lambda: not zero.api.busy)
    print(f"from cancel to release: {time.monotonic() - began:.2f} s")
