"""Which controls a model has, and what stands under its name."""

import shutil

import pytest

from parley.settings import OPTIONS
from parley.ui import controls
from tests.conftest import ROOT

TURNS = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"


@pytest.mark.parametrize(
    ("template", "expected"),  # which of the controls are shown, and does it say "always thinks"
    [
        (TURNS, ((False, False, False), False)),
        (TURNS + "{{ '<think>' if thinking }}", ((True, True, False), False)),
        (TURNS + "assistant: <think>\n", ((False, True, False), True)),
        (TURNS + "<|start|>assistant<|message|>{{ reasoning_effort or 'medium' }}", ((False, True, True), True)),
    ],
    ids=["never thinks", "thinks when told to", "always thinks", "thinks more or less"],
)
def test_a_model_has_the_thinking_controls_that_its_template_can_follow(tmp_path, monkeypatch, template, expected):
    shown, always = expected
    folder = tmp_path / "model"
    shutil.copytree(ROOT / "parley" / "budgie" / "weights", folder)
    (folder / "chat_template.jinja").write_text(template)
    monkeypatch.setenv("MODEL_IDS", str(folder))
    updates = dict(zip(OPTIONS, controls.for_model(folder.name), strict=True))
    assert tuple(updates[n]["visible"] for n in ("thinking", "thinking_budget", "reasoning_effort")) == shown
    if shown[2]:
        assert updates["reasoning_effort"]["choices"] == ["default", "low", "medium", "high"]
    assert ("always thinks" in updates["model"]["info"]) is always
    assert updates["thinking_budget"].get("value") == (None if shown[1] else 0)  # a hidden control sends its default
