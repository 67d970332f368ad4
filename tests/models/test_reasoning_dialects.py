"""Which marks a model's thoughts have, and what switches them, as its template and its tokens tell."""

import pytest

from parley.models.reasoning_dialects import DIALECTS, of_response_template
from parley.models.traits import thinking_traits
from parley.settings import Settings

CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{% endfor %}"


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("{{ '<|start|>' + messages[0].role + '<|message|>' }}", "harmony"),
        ("{{ '<|channel>thought\n<channel|>' }}{% if enable_thinking %}<|think|>{% endif %}", "gemma"),
        ("{{ '<seed:think>' }}", "seed"),
        ("<|START_THINKING|><|END_THINKING|><|START_RESPONSE|>", "command"),
        ("<|START_THINKING|><|END_THINKING|><|START_TEXT|>", "command-text"),
        ("<|inner_prefix|>{{ messages }}<|inner_suffix|>", "apertus"),
        ("{% if thinking_mode == 'enabled' %}<mm:think>{% endif %}", "minimax"),
        ("<|open|>think<|sep|>{{ messages }}<|close|>think<|sep|>", "kimi"),
        ("<|begin|>assistant<|think|><|end|><|content|>", "solar"),
        ("{{ messages[0].content.split('[BEGIN FINAL RESPONSE]')[-1] }}", "apriel"),
        ("Write 'Here is my thought process:' and 'Here is my response:'", "granite-3.2"),
        ("Think between <think></think> and answer between <response></response>", "granite"),
        ("[THINK]{{ messages }}[/THINK]", "magistral"),
        ("{{ messages[0].content.split('◁/think▷')[-1] }}", "kimi-dev"),
        ("{{ messages[0].content.split('</think>')[-1] }}", "think"),
    ],
)
def test_each_dialect_is_known_by_its_marks(template, name):
    assert thinking_traits(template).dialect == DIALECTS[name]
    assert thinking_traits(template).in_template


def test_the_tokens_tell_where_the_template_does_not_but_do_not_say_that_the_model_thinks():
    assert thinking_traits(CHATML).dialect is None
    found = thinking_traits(CHATML, ["<|im_end|>", "<think>", "</think>"])
    assert (found.dialect, found.always) == (DIALECTS["think"], False)


@pytest.mark.parametrize(
    ("template", "on", "off", "always"),
    [
        ("{% if enable_thinking %}<think>{% endif %}", {"enable_thinking": True}, {"enable_thinking": False}, False),
        (
            "{% if not thinking is defined %}{% set thinking = false %}{% endif %}{{ '<think>' if thinking }}",
            {"thinking": True},
            {"thinking": False},
            False,
        ),
        (
            "{{ '<mm:think>' if thinking_mode == 'enabled' }}{{ '</mm:think>' if thinking_mode == 'disabled' }}",
            {"thinking_mode": "enabled"},
            {"thinking_mode": "disabled"},
            False,
        ),
        (
            "{% if thinking_mode == 'chat' %}</think>{% elif thinking_mode == 'thinking' %}<think>{% endif %}",
            {"thinking_mode": "thinking"},
            {"thinking_mode": "chat"},
            False,
        ),
        (
            "{% if reasoning_effort == 'none' %}{% elif reasoning_effort == 'high' %}[THINK]{% endif %}",
            {"reasoning_effort": "high"},
            {"reasoning_effort": "none"},
            False,
        ),
        ("<seed:think>{{ thinking_budget }}", {"thinking_budget": -1}, {"thinking_budget": 0}, False),
    ],
)
def test_the_switch_is_found_by_the_name_and_the_values_that_the_template_reads(template, on, off, always):
    found = thinking_traits(template)
    assert (found.switch.variables(True), found.switch.variables(False)) == (on, off)
    assert found.always is always


@pytest.mark.parametrize(
    ("template", "levels", "switches", "always"),
    [
        (
            "{% set reasoning_effort = reasoning_effort or 'medium' %}{{ reasoning_effort }}<|start|><|message|>",
            ("low", "medium", "high"),
            False,
            True,
        ),
        ("{{ '[THINK]' if reasoning_effort == 'high' or reasoning_effort != 'none' }}", ("high",), True, False),
        (
            "{% if reasoning_effort in ['low', 'minimal'] %}{% elif reasoning_effort in ['medium', 'high'] %}<think>"
            "{% endif %}",
            ("low", "medium", "high"),
            True,
            False,
        ),
        (
            "{{ '<think>' if thinking }}{{ 'max' if reasoning_effort == 'max' else 'high' }}",
            ("high", "max"),
            True,
            False,
        ),
        ("{{ '<think>' if thinking }}", (), True, False),
    ],
)
def test_the_levels_of_reasoning_effort_are_those_that_the_template_names(template, levels, switches, always):
    found = thinking_traits(template)
    assert (found.efforts, found.switch is not None, found.always) == (levels, switches, always)
    for level in levels:
        asked = found.variables(Settings(reasoning_effort=level))
        assert asked["reasoning_effort"] == level and found.thinks(Settings(reasoning_effort=level))
    assert found.variables(Settings()) == (found.switch.variables(False) if switches else {})


def test_a_budget_is_told_to_a_template_that_reads_it():
    switch = thinking_traits("<seed:think>{{ thinking_budget }}").switch
    assert [switch.variables(thinking, 512) for thinking in (True, False)] == [
        {"thinking_budget": 512},
        {"thinking_budget": 0},
    ]


def test_a_command_in_the_system_message_is_a_switch_only_where_no_variable_is_one():
    commands = "{{ '<think>' if '/no_think' not in messages[0].content }}"
    switch = thinking_traits(commands).switch
    assert (switch.command(True), switch.command(False)) == ("/think", "/no_think")
    assert switch.variables(True) == {}
    assert thinking_traits(commands + "{{ enable_thinking }}").switch.command(True) == ""


def test_a_template_with_marks_and_no_switch_belongs_to_a_model_that_always_thinks():
    assert thinking_traits(CHATML + "{{ '<|im_start|>assistant\n<think>\n' }}").always
    assert not thinking_traits(CHATML).always


def test_a_response_template_says_what_the_marks_are():
    fields = {"reasoning_content": {"open": "<hm>", "close": "</hm>"}, "content": {"close": ["<over>", "<eos>"]}}
    found = of_response_template({"fields": fields})
    assert (found.openings, found.closing, found.ends) == (("<hm>",), "</hm>", ("<over>", "<eos>"))
    for none in (None, {}, {"fields": {"content": {}}}, {"fields": {"reasoning_content": {"open_pattern": "<.>"}}}):
        assert of_response_template(none) is None


def test_a_mark_that_a_response_template_gives_as_a_pattern_is_found_among_the_tokens():
    thought = {"open_pattern": r"\s*<(?:hm|think)>\s*", "close_pattern": r"\s*</(hm|think)>\s*"}
    fields = {"reasoning_content": thought, "content": {"close_pattern": r"\s*<\|im_end\|>"}}
    found = of_response_template({"fields": fields}, ["<hm>", "</hm>", "<|im_end|>"])
    assert (found.openings, found.closing, found.ends) == (("<hm>", "<think>"), "</hm>", ("<|im_end|>",))
    for bad in ("(", "(x+x+)+y", 7):
        fields = {"reasoning_content": {"open_pattern": bad, "close": "</hm>"}}
        assert of_response_template({"fields": fields}, ["x" * 60]) is None
