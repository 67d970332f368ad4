"""docs/faults.md is the table of the faults that the tests bring about."""

import pytest

pytest.importorskip("openvino")

from tools import faults_table


def test_the_page_is_what_the_tool_writes():
    """If this fails after a change of a row: `python -m tools.faults_table` writes it again."""
    assert faults_table.PAGE.read_text("utf-8") == faults_table.page()
