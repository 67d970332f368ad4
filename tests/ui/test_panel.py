"""The settings beside the conversation: calm, explained, and never lost without a word."""

import pytest
from playwright.sync_api import expect

from parley.settings import OPTIONS
from parley.ui import controls

pytest_plugins = ["tests.browser"]


def values_of(model="budgie", **changed):
    return [({"model": model} | controls.defaults(model) | changed)[name] for name in OPTIONS]


def changed_to(model, **changed):
    updates = controls.change_model(model, controls.defaults("budgie"), *values_of(**changed))
    return dict(zip(OPTIONS, updates, strict=True))


def test_another_model_keeps_what_the_visitor_set(monkeypatch, endless_folder):
    monkeypatch.setenv("MODEL_IDS", f"budgie,parrot,{endless_folder}")
    updates = changed_to("endless", temperature=1.1, strategy="beam_sampling", stop="END", num_beams=3)
    for name in ("temperature", "strategy", "stop", "num_beams", "max_new_tokens"):
        assert "value" not in updates[name]
    assert updates["repetition_penalty"]["value"] == 1.3  # as that model recommends
    assert updates["num_beams"]["visible"]
    assert "Back to the default" not in updates["model"]["info"]


def test_another_model_says_what_it_could_not_keep(monkeypatch, endless_folder):
    monkeypatch.setenv("MODEL_IDS", f"budgie,parrot,{endless_folder}")
    updates = changed_to("parrot", thinking=True, temperature=1.1)
    assert updates["thinking"]["value"] is False
    assert "Parrot (repeats you) does not take what you set: Thinking.**" in updates["model"]["info"]


def test_a_button_that_chooses_a_model_keeps_and_names_the_same_as_the_box(monkeypatch, endless_folder):
    monkeypatch.setenv("MODEL_IDS", f"budgie,parrot,{endless_folder}")
    for model, changed in (("endless", {"temperature": 1.1, "strategy": "beams"}), ("parrot", {"thinking": True})):
        box = changed_to(model, **changed)
        button = dict(zip(OPTIONS, controls.choose_model(model, *values_of(**changed)), strict=True))
        assert button == box | {"model": box["model"] | {"value": model}}
    assert "does not take what you set: Thinking.**" in button["model"]["info"]


def test_a_reset_gives_the_model_s_own_values_of_these_settings_alone(monkeypatch):
    monkeypatch.setenv("MODEL_IDS", "budgie")
    usual = controls.defaults("budgie")
    updates = dict(zip(OPTIONS, controls.reset(["strategy", "top_k"], "budgie"), strict=True))
    assert {n: u["value"] for n, u in updates.items() if "value" in u} == {n: usual[n] for n in ("strategy", "top_k")}
    assert not any("visible" in u for u in updates.values())


@pytest.mark.slow
def test_sampling_fits_one_screen_in_the_order_of_use_and_help_is_on_demand(visitor):
    visitor.choose("strategy", "Sampling")
    panel = visitor.page.locator("#settings")
    expect(visitor.setting("temperature")).to_be_visible()
    assert panel.evaluate("(e) => e.scrollHeight") <= 712
    assert panel.evaluate("(e) => e.scrollHeight <= e.clientHeight")
    order = ("model", "strategy", "temperature", "max_new_tokens", "stop", "seed", "thinking", "system_prompt")
    tops = [visitor.setting(name).bounding_box()["y"] for name in order]
    more = visitor.page.get_by_role("button", name="More settings").bounding_box()["y"]
    assert [*tops, more] == sorted([*tops, more])
    about = visitor.setting("temperature").get_by_role("button", name="About Temperature")
    help_text = visitor.setting("temperature").get_by_text(OPTIONS["temperature"].help)
    expect(help_text).to_be_hidden()
    about.press("Enter")
    expect(help_text).to_be_visible()
    expect(about).to_have_attribute("aria-expanded", "true")
    about.press("Enter")
    expect(help_text).to_be_hidden()
    expect(visitor.setting("model").get_by_text("million parameters")).to_be_hidden()
    visitor.page.get_by_role("button", name="About this model").click()
    expect(visitor.setting("model").get_by_text("million parameters")).to_be_visible()
    prompt = visitor.setting("system_prompt").locator("textarea")
    low = prompt.bounding_box()["height"]
    assert low < 40
    visitor.press("Teacher")
    expect(prompt).to_have_value(controls.PRESETS["Teacher"])
    assert prompt.bounding_box()["height"] > low


@pytest.mark.slow
def test_what_is_off_reads_so_and_what_is_changed_is_marked_and_can_be_reset(visitor):
    visitor.choose("strategy", "Sampling")
    min_p, top_p = visitor.setting("min_p"), visitor.setting("top_p")
    expect(min_p).to_have_attribute("data-off", "")
    expect(min_p.get_by_role("slider")).to_have_attribute("aria-valuetext", "off")
    reset_all = visitor.page.get_by_role("button", name="Reset all")
    top_p.locator("input[type=number]").fill("1")
    expect(top_p).to_have_attribute("data-off", "")
    min_p.locator("input[type=number]").fill("0.2")
    visitor.setting("system_prompt").locator("textarea").fill("Be brief.")
    visitor.choose("strategy", "Beam-search sampling")
    for name in ("top_p", "min_p", "system_prompt", "strategy"):
        expect(visitor.setting(name)).to_have_attribute("data-changed", "")
    usual = controls.defaults("budgie")
    top_p.get_by_role("button", name=f"Reset Top-p to {usual['top_p']}").click()
    expect(top_p.locator("input[type=number]")).to_have_value(str(usual["top_p"]))
    expect(top_p).not_to_have_attribute("data-changed", "")
    visitor.choose("model", "endless")
    expect(min_p.locator("input[type=number]")).to_have_value("0.2")
    expect(visitor.setting("strategy").locator("input")).to_have_value("Beam-search sampling")
    reset_all.click()
    expect(reset_all).to_be_hidden()
    expect(min_p.locator("input[type=number]")).to_have_value("0")
    expect(visitor.setting("system_prompt").locator("textarea")).to_have_value("")
    expect(visitor.setting("num_beams")).to_be_hidden()
    expect(visitor.page.locator("#settings [data-changed]")).to_have_count(0)


@pytest.mark.slow
def test_a_question_right_after_a_choice_of_model_takes_the_values_of_that_model(visitor):
    held, released = [], []

    def hold(route):
        route.continue_() if released else held.append(route)

    visitor.tab.route("**/gradio_api/run/**", hold)
    visitor.choose("model", "endless")
    visitor.send("Hello")
    expect(visitor.box).to_have_value("Hello")  # it waits for the values of the model
    assert held
    released.append(True)
    for route in held:
        route.continue_()
    expect(visitor.box).to_have_value("")
    visitor.until_free()
    key = "Object.keys(localStorage).find((key) => key.startsWith('parley.conversation.'))"
    nodes = visitor.tab.evaluate(f"JSON.parse(localStorage[{key}]).nodes")
    [settings] = [node["stored"]["settings"] for node in nodes.values() if "stored" in node]
    assert settings["model"] == "endless"
    assert settings["repetition_penalty"] == 1.3  # as that model recommends


@pytest.mark.slow
@pytest.mark.parametrize(("width", "height"), [(700, 500), (390, 800)])
def test_on_a_narrow_page_a_chip_opens_the_settings_over_the_conversation(visit, width, height):
    visitor = visit(width=width, height=height)
    chip, panel = visitor.page.locator("#chip"), visitor.page.locator("#settings")
    visitor.choose("strategy", "Sampling")
    expect(panel).to_be_hidden()
    expect(chip).to_have_text("Budgie (bundled) · Sampling · 0.7")
    chip.click()
    expect(panel).to_be_in_viewport()
    assert panel.evaluate("(e) => e.contains(document.activeElement)")
    visitor.setting("temperature").locator("input[type=number]").fill("1.2")
    expect(chip).to_have_text("Budgie (bundled) · Sampling · 1.2")
    picker = visitor.setting("strategy").locator("input")
    picker.click()
    expect(visitor.page.get_by_role("option").first).to_be_visible()
    visitor.tab.keyboard.press("Escape")  # closes the list only
    expect(picker).to_have_attribute("aria-expanded", "false")
    expect(panel).to_be_visible()
    visitor.tab.keyboard.press("Escape")
    expect(panel).to_be_hidden()
    expect(chip).to_be_focused()
    chip.click()
    visitor.tab.mouse.click(10, height / 2)
    expect(panel).to_be_hidden()
    expect(chip).to_be_focused()
    assert visitor.tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
