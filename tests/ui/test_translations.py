"""The page in other languages: nothing is missing, and a visitor gets what the address names."""

import pytest
from playwright.sync_api import expect

from parley.settings import OPTIONS
from parley.ui import page, translations

pytest_plugins = ["tests.browser"]


@pytest.mark.parametrize("language", translations.LANGUAGES)
def test_a_file_has_every_text_and_no_other(language):
    english, other = page.english(), translations.read(language)
    assert sorted(set(english) - set(other)) == [], f"{language}.toml lacks these"
    assert sorted(set(other) - set(english)) == [], f"these are texts of {language}.toml alone"
    assert all(text.strip() == text and text for text in other.values())


def test_the_address_names_the_language(visit, inside):
    visitor = visit()
    visitor.tab.goto(f"{inside.url}?lang=de")
    german = translations.read("de")
    expect(visitor.page.locator(".placeholder h2")).to_have_text(german["page.question"])
    expect(visitor.box).to_have_attribute("placeholder", german["page.placeholder"])
    expect(visitor.send_button).to_have_accessible_name(german["name.send"])
    expect(visitor.setting("temperature")).to_contain_text(german["setting.temperature.help"])
    visitor.choose("strategy", "Beam search")  # its texts come from the server
    expect(visitor.setting("strategy")).to_contain_text(german["strategy.beams.summary"])
    expect(visitor.setting("strategy")).to_contain_text(german["strategy.beams.when"])
    expect(visitor.page.locator("#show-conversations")).to_have_text(german["conversations.list"])
    expect(visitor.setting("num_beams")).to_contain_text(german["setting.num_beams.help"])
    visitor.choose("model", "Parrot")
    said = OPTIONS["seed"].help
    visitor.ask(said)
    expect(visitor.answer).to_have_text(said)
    expect(visitor.page.locator("html")).to_have_attribute("lang", "de")
    visitor.tab.goto(f"{inside.url}?lang=xx")
    expect(visitor.page.locator("#title")).to_contain_text(page.TEXTS["tagline"])  # the conversation is still there
