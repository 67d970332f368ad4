import math
import pickle
import subprocess
import sys

import numpy
import pytest
from pydantic import ValidationError

from parley import stop_strings, strategies
from parley.errors import BadSetting
from parley.models.formats import config_fields
from parley.settings import OPTIONS, Settings, check_strategies
from tests.conftest import ROOT

NUMBERS = [o for o in OPTIONS.values() if o.kind in (int, float)]


def test_nothing_given_means_the_defaults():
    assert Settings.check({}) == Settings()


def test_none_means_the_models_recommendation_and_a_value_wins_over_it():
    recommended = {"temperature": 0.3, "top_p": 0.8}
    settings = Settings.check({"temperature": None, "top_p": 0.5}, recommended)
    assert (settings.temperature, settings.top_p, settings.top_k) == (0.3, 0.5, Settings().top_k)


@pytest.mark.parametrize("option", NUMBERS, ids=lambda o: o.name)
def test_a_number_out_of_bounds_or_no_number_at_all_is_refused_with_the_bounds(option):
    for bad in (
        option.low - 1,
        option.high + 1,
        math.nan,
        math.inf,
        -math.inf,
        10**400,
        "1",
        True,
        [1],
        {},
        numpy.int64(1),
    ):
        with pytest.raises(BadSetting) as refusal:
            Settings.check({option.name: bad})
        assert option.label in str(refusal.value)
        assert f"from {option.low} to {option.high}" in str(refusal.value)


@pytest.mark.parametrize("option", NUMBERS, ids=lambda o: o.name)
def test_both_bounds_themselves_are_allowed(option):
    for edge in (option.low, option.high):
        assert getattr(Settings.check({option.name: edge}), option.name) == edge


def test_a_whole_number_may_come_as_a_float_but_not_with_a_fraction():
    assert type(Settings.check({"top_k": 40.0}).top_k) is int
    with pytest.raises(BadSetting, match="whole number"):
        Settings.check({"top_k": 40.5})


def test_an_unknown_setting_is_refused_and_the_known_ones_are_named():
    with pytest.raises(BadSetting, match=r"'temprature'.*temperature"):
        Settings.check({"temprature": 1})


def test_an_unknown_strategy_is_refused_and_the_known_ones_are_named():
    with pytest.raises(BadSetting, match=r"'magic'.*greedy, sampling"):
        Settings.check({"strategy": "magic"})


def test_text_of_the_wrong_type_or_length_is_refused():
    with pytest.raises(BadSetting, match="must be text"):
        Settings.check({"system_prompt": ["x"]})
    with pytest.raises(BadSetting, match="at most 4000 characters; this one has 4001"):
        Settings.check({"system_prompt": "x" * 4001})
    with pytest.raises(BadSetting, match="true or false"):
        Settings.check({"thinking": "yes"})


def test_stop_strings_are_one_a_line_with_escapes_for_white_space():
    assert Settings.check({"stop": "END\n\\n\\n\n\tx"}).stop_strings == ("END", "\n\n", "\tx")


@pytest.mark.parametrize("text", ["tiny", "\\nabla", "\\theta", "C:\\temp", "a\nb", "\r\n", "\\\\", "\t\\t"])
def test_any_text_can_be_a_stop_string_as_a_line_and_in_a_list(text):
    """Public cases 8 and 19."""
    assert Settings.check({"stop": ["x", text]}).stop_strings == ("x", text)
    assert Settings.check({"stop": stop_strings.escape(text)}).stop_strings == (text,)


def test_an_escaped_backslash_is_a_backslash_and_another_escape_is_itself():
    assert Settings.check({"stop": "\\\\nabla\n\\q"}).stop_strings == ("\\nabla", "\\q")


def test_a_list_of_words_is_taken_and_a_list_of_anything_else_is_refused():
    assert Settings.check({"force_words": ["owl", "lamp post"]}).forced_words == ("owl", "lamp post")
    for name in ("stop", "force_words"):
        with pytest.raises(BadSetting, match="must be text, or a list of texts"):
            Settings.check({name: ["a", 5]})


@pytest.mark.parametrize(("chosen", "becomes"), [("sampling", "greedy"), ("beam_sampling", "beams")])
def test_temperature_zero_is_the_strategy_that_does_not_draw(chosen, becomes):
    """Public case 20."""
    assert Settings.check({"strategy": chosen, "temperature": 0}).effective_strategy.name == becomes
    assert Settings.check({"strategy": chosen, "temperature": 0.05}).effective_strategy.name == chosen


def test_temperature_zero_is_refused_where_nothing_could_be_drawn_and_ignored_where_nothing_is():
    with pytest.raises(BadSetting, match="SynthID draws at random, so its temperature must be above 0"):
        Settings.check({"strategy": "synthid", "temperature": 0})
    assert Settings.check({"strategy": "dola", "temperature": 0}).effective_strategy.name == "dola"


@pytest.mark.parametrize("stop", ["x" * 51, "\n".join("abcdefghi")])
def test_too_many_or_too_long_stop_strings_are_refused(stop):
    with pytest.raises(BadSetting, match="at most 8 stop strings"):
        Settings.check({"stop": stop})


def test_every_option_has_a_label_and_a_sentence_of_help():
    for option in OPTIONS.values():
        assert option.label and option.help.endswith(".")


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"model": 5}, "Model must be text."),
        ({"strategy": "x" * 41}, "Decoding strategy may have at most 40 characters; this one has 41."),
        ({"dola_layers": "middle"}, "Early layers may have at most 4 characters; this one has 6."),
        ({"dola_layers": "mid"}, "Early layers must be one of low, high; 'mid' is not."),
        ({"dola_layers": ["low"]}, "Early layers must be text."),
        ({"thinking": 1}, "Thinking must be true or false."),
        ({"top_p": True}, "Top-p must be a number from 0.05 to 1.0."),
        ({"top_p": "0.5"}, "Top-p must be a number from 0.05 to 1.0."),
        ({"top_p": math.nan}, "Top-p must be a number from 0.05 to 1.0."),
        ({"top_p": 2}, "Top-p must be a number from 0.05 to 1.0; 2 is not."),
        ({"top_k": "5"}, "Top-k must be a whole number from 0 to 1000."),
        ({"top_k": 1.5}, "Top-k must be a whole number from 0 to 1000; 1.5 is not."),
        ({"seed": -1}, "Seed must be a whole number from 0 to 4294967295; -1 is not."),
        ({"top_k": 1.5, "top_p": 2}, "Top-p must be a number from 0.05 to 1.0; 2 is not."),  # in the table's order
    ],
    ids=str,
)
def test_each_refusal_is_one_exact_sentence(values, sentence):
    with pytest.raises(BadSetting) as refusal:
        Settings.check(values)
    assert str(refusal.value) == sentence


def test_half_a_character_becomes_a_question_mark():
    assert Settings.check({"system_prompt": "a\ud83d"}).system_prompt == "a?"


def test_the_constructor_checks_too_and_settings_never_change():
    with pytest.raises(ValidationError):
        Settings(top_k=2000)
    with pytest.raises(ValidationError):
        Settings(temprature=1)
    with pytest.raises(ValidationError):
        Settings().top_k = 5
    assert pickle.loads(pickle.dumps(Settings(seed=5))) == Settings(seed=5)  # it goes to a worker of ZeroGPU


def test_a_strategy_with_an_unknown_setting_is_refused_when_the_settings_are_imported():
    check_strategies(strategies.STRATEGIES.values())
    program = (
        "import dataclasses, parley.strategies as s\n"
        "s.STRATEGIES['greedy'] = dataclasses.replace(s.find('greedy'), settings=('temprature',))\n"
        "import parley.settings"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    last = ended.stderr.splitlines()[-1]
    assert last == "ValueError: The strategy 'greedy' uses settings that do not exist: temprature."


def test_the_tables_for_transformers_follow_from_the_fields():
    neutral = {name: option.neutral for name, option in OPTIONS.items()}
    assert (neutral["temperature"], neutral["top_p"], neutral["top_k"], neutral["min_p"]) == (1.0, 1.0, 0, 0.0)
    assert config_fields.OFF == {
        "min_p": 0.0,
        "top_h": 0.0,
        "epsilon_cutoff": 0.0,
        "eta_cutoff": 0.0,
        "no_repeat_ngram_size": 0,
        "min_new_tokens": 0,
        "guidance_scale": 1.0,
    }
    unused = {name: value for name, value in config_fields.UNUSED.items() if value is not None}
    assert unused == {"do_sample": False, "early_stopping": False, "num_beams": 1, "length_penalty": 1.0}
    assert set(config_fields.UNUSED) - set(config_fields.COPIED) == {"do_sample", "early_stopping"}
    assert set(config_fields.COPIED) == {
        *("temperature", "top_k", "top_p", "min_p", "typical_p", "top_h", "epsilon_cutoff", "eta_cutoff"),
        *("num_beams", "length_penalty", "no_repeat_ngram_size", "min_new_tokens", "guidance_scale"),
    }


@pytest.mark.parametrize("most", [100, 8192])
def test_an_answer_has_as_many_tokens_as_the_owner_allows(most):
    program = f"""
from parley.errors import BadSetting
from parley.settings import OPTIONS, Settings
print(OPTIONS["max_new_tokens"].high, Settings.check({{}}).max_new_tokens)
assert Settings.check({{"max_new_tokens": {most}}}).max_new_tokens == {most}
try: Settings.check({{"max_new_tokens": {most + 1}}})
except BadSetting as refusal: print(refusal)
"""
    run = [sys.executable, "-c", program]
    told = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, env={"MAX_NEW_TOKENS": str(most)}, check=True)
    sentence = f"Max new tokens must be a whole number from 1 to {most}; {most + 1} is not."
    assert told.stdout.splitlines() == [f"{most} {min(512, most)}", sentence]
