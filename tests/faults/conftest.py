"""The world of the faults, for all of them."""

import pytest

from tests.faults.world import World


@pytest.fixture(scope="module")
def world(request, inside, faulty, tiny, tmp_path_factory):
    made = World(inside, faulty, tiny, tmp_path_factory.mktemp("faults"), lambda: request.getfixturevalue("chromium"))
    yield made
    made.close()
