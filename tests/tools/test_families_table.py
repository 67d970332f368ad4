"""docs/families.md says of each causal architecture of transformers what holds now."""

import pytest

pytest.importorskip("openvino")

from tools import families_table


def test_the_page_is_what_the_tool_writes():
    """If this fails after a change of a row or of transformers: `python -m tools.families_table` writes it again."""
    assert families_table.PAGE.read_text("utf-8") == families_table.page()


@pytest.mark.parametrize(
    ("model_type", "verdict"),
    [
        ("llama", "served"),
        ("mixtral", "mixture of experts"),
        ("doge", "no row yet"),  # it has experts that are off by default
        ("mllama", "reads images or sound too"),
        ("bart", "encoder and decoder"),
        ("bert", "an encoder that can be used as a decoder"),
        ("mamba", "keeps a recurrent state"),
        ("lfm2", "keeps a recurrent state"),
        ("minicpm3", "multi-head latent attention"),
        ("gemma2", "soft caps"),
        ("gpt2", "positions that no rope parameters describe"),
        ("apertus", "another activation"),
    ],
)
def test_the_reason_is_read_off_the_config(model_type, verdict):
    assert families_table.verdict(model_type) == verdict
