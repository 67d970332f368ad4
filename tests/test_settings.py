import math

import pytest

from parley.errors import BadSetting
from parley.settings import OPTIONS, Settings

NUMBERS = [o for o in OPTIONS.values() if o.kind in (int, float)]


def test_nothing_given_means_the_defaults():
    assert Settings.check({}) == Settings()


def test_none_means_the_models_recommendation_and_a_value_wins_over_it():
    recommended = {"temperature": 0.3, "top_p": 0.8}
    settings = Settings.check({"temperature": None, "top_p": 0.5}, recommended)
    assert (settings.temperature, settings.top_p, settings.top_k) == (0.3, 0.5, Settings().top_k)


@pytest.mark.parametrize("option", NUMBERS, ids=lambda o: o.name)
def test_a_number_out_of_bounds_or_no_number_at_all_is_refused_with_the_bounds(option):
    for bad in (option.low - 1, option.high + 1, math.nan, math.inf, -math.inf, 10**400, "1", True, [1], {}):
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


@pytest.mark.parametrize("stop", ["x" * 51, "\n".join("abcdefghi")])
def test_too_many_or_too_long_stop_strings_are_refused(stop):
    with pytest.raises(BadSetting, match="at most 8 stop strings"):
        Settings.check({"stop": stop})


def test_every_option_has_a_label_and_a_sentence_of_help():
    for option in OPTIONS.values():
        assert option.label and option.help.endswith(".")
