"""The list of strategies teaches: groups, half a line for each, and what the chosen one is good for."""

import re

import pytest
from playwright.sync_api import expect

from parley.strategies import STRATEGIES
from parley.strategies.strategy import GROUPS, SOONER
from parley.ui.views.strategy_picker import explanation

pytest_plugins = ["tests.browser"]

IN_SIGHT = """(option) => {
    const [inner, outer] = [option, option.closest("ul")].map((e) => e.getBoundingClientRect());
    return inner.top >= Math.max(outer.top, 0) && inner.bottom <= Math.min(outer.bottom, innerHeight);
}"""


def test_the_explanation_says_what_it_does_what_it_is_good_for_and_where_to_read_on():
    row = STRATEGIES["prompt_lookup"]
    said = explanation(row, "Top-k")
    assert said.startswith(f"{row.summary} Not with this model: Top-k.\nGood for the text of greedy search")
    assert said.endswith(f"[Documentation]({row.source})")
    assert explanation(STRATEGIES["dola"]).endswith(f"[Paper]({STRATEGIES['dola'].source})")


def test_those_that_give_the_result_of_another_strategy_sooner_say_of_which():
    sooner = [row for row in STRATEGIES.values() if row.group == SOONER]
    assert {row.samples for row in sooner} == {True, False}
    for row in sooner:
        same = "For the distribution of sampling" if row.samples else "For the text of greedy search"
        assert row.when.startswith(same)


@pytest.mark.slow
@pytest.mark.parametrize(("width", "height"), [(1280, 800), (700, 500), (390, 800)])
def test_the_list_has_groups_filters_at_once_and_opens_where_the_chosen_one_is(visit, width, height):
    visitor = visit(width=width, height=height)
    options = visitor.page.get_by_role("option")
    picker = visitor.setting("strategy").locator("input")
    for row in (STRATEGIES["synthid"], STRATEGIES["greedy"], STRATEGIES["dola"]):
        visitor.choose("strategy", row.label)
        with visitor.settings():
            link = visitor.setting("strategy").get_by_role("link")
            expect(link).to_have_attribute("href", row.source)
            expect(visitor.setting("strategy")).to_contain_text(f"{row.summary}")
            expect(visitor.setting("strategy")).to_contain_text(f"Good {row.when[0].lower()}{row.when[1:]}")
            picker.click()
            chosen = visitor.page.locator("#setting-strategy li.selected")
            expect(chosen).to_have_attribute("data-hint", row.hint)
            expect(chosen).to_be_in_viewport(ratio=1)
            assert chosen.evaluate(IN_SIGHT)
            heads = visitor.page.locator("#setting-strategy li[data-first]")
            assert heads.evaluate_all("(all) => all.map((each) => each.dataset.group)") == list(GROUPS)
            picker.press("Escape")
            expect(options).to_have_count(0)
            picker.blur()
    with visitor.settings():
        picker.click()
        picker.press_sequentially("water")
        expect(picker).to_have_value("water")
        expect(options).to_have_text([re.compile("green list"), re.compile("SynthID")])
        picker.press("ArrowDown")
        picker.press("Enter")
        expect(picker).to_have_value("Watermark: SynthID")
        model = visitor.setting("model").locator("input")
        model.click()
        model.press_sequentially("par")
        expect(options).to_have_text([re.compile("Parrot")])
