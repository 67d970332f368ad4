"""A comparison on ZeroGPU: one call serves all columns that need a GPU, and the others answer beside it."""

import pytest
from gradio_client.exceptions import AppError

from tests.conftest import until
from tests.zerogpu.conftest import BIRD, ZeroGpuSpace

pytestmark = pytest.mark.slow

QUESTION = "Tell me a story about an owl."
ON_GPU = {"model": BIRD, "strategy": "greedy", "max_new_tokens": 24}


@pytest.fixture(scope="module")
def zero(tmp_path_factory):
    running = ZeroGpuSpace(tmp_path_factory.mktemp("zerogpu"), MAX_GPU_SECONDS="40")
    yield running
    running.close()


@pytest.fixture
def client(zero):
    yield zero.client()
    until(lambda: not zero.api.busy and not zero.api.line)


def test_one_call_serves_all_columns(zero, client):
    alone = client.predict(QUESTION, messages=[], **ON_GPU, api_name="/chat")
    asked = len(zero.api.asked("/schedule"))
    columns = [ON_GPU, ON_GPU | {"strategy": "sampling", "seed": 3}, ON_GPU | {"strategy": "beams"}]
    states = list(client.submit(QUESTION, [*columns, {"model": "parrot"}], api_name="/compare"))
    assert len(zero.api.asked("/schedule")) == asked + 1
    last = states[-1]
    assert [each["error"] for each in last["columns"]] == [""] * 4
    assert last["columns"][0]["text"] == alone and last["columns"][3]["text"] == QUESTION
    assert last["gpu_seconds"] > 0
    assert all(each["figures"]["logprob"] < 0 for each in last["columns"][:3])
    together = [sum(bool(each["text"]) and not each["finish"] for each in state["columns"][:3]) for state in states]
    assert max(together) > 1, "they run at the same time"


def test_all_can_be_refused_with_the_sentence_of_zerogpu(zero, client):
    zero.api.refuse_next = True
    with pytest.raises(AppError, match="Column 1"):
        client.predict(QUESTION, [ON_GPU | {"seed": -1}, ON_GPU], api_name="/compare")


def test_a_comparison_that_is_cancelled_frees_the_gpu(zero, client):
    talker = {"model": zero.endless.name, "max_new_tokens": 4000}
    job = client.submit(QUESTION, [talker, talker | {"seed": 1}], api_name="/compare")
    until(lambda: job.outputs() and all(each["text"] for each in job.outputs()[-1]["columns"]))
    job.cancel()
    until(lambda: not zero.api.busy)
