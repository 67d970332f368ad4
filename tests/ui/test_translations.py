"""The page in other languages: nothing is missing, and a visitor gets what the address names."""

import re
from collections import defaultdict

import pytest
from playwright.sync_api import expect

from parley.models import registry
from parley.settings import OPTIONS
from parley.strategies import STRATEGIES
from parley.ui import page, translations
from tests.browser import Visitor

pytest_plugins = ["tests.browser"]


@pytest.mark.parametrize("language", translations.LANGUAGES)
def test_a_file_has_every_text_and_no_other(language):
    english, other = page.english(), translations.read(language)
    assert sorted(set(english) - set(other)) == [], f"{language}.toml lacks these"
    assert sorted(set(other) - set(english)) == [], f"these are texts of {language}.toml alone"
    assert all(text.strip() == text and text for text in other.values())
    places = {name: set(re.findall(r"\{\w+\}", text)) for name, text in english.items()}
    assert {name: set(re.findall(r"\{\w+\}", text)) for name, text in other.items()} == places
    twice = [name for name, text in english.items() if len(set(found := re.findall(r"\{\w+\}", text))) < len(found)]
    assert twice == [], "a place occurs once in a text, because the page makes a group of an expression of it"
    by_english = defaultdict(set)
    for name, text in english.items():
        by_english[text].add(other[name])
    assert [text for text, others in by_english.items() if len(others) > 1] == []  # the page looks up the English text


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


# All that is seen or read aloud, but for what models and visitors write, and the examples, which are for Budgie.
SHOWN = """() => {
    const found = [], names = ["placeholder", "title", "aria-label", "aria-description", "aria-valuetext"];
    const theirs = "#chat .bot-row:not(:has(.thought-group)) .prose, #chat .user-row .md, .example, .name, pre, " +
        "time, #announced, .thought-group td:last-child, [data-theirs], [translate=no]";
    const seen = (element) => element?.checkVisibility({ visibilityProperty: true }) && !element.closest(theirs);
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) if (seen(walker.currentNode.parentElement)) found.push(walker.currentNode.data);
    for (const element of document.querySelectorAll("body *")) {
        if (!seen(element)) continue;
        found.push(...names.map((name) => element.getAttribute(name) ?? ""));
        for (const part of ["::before", "::after"]) {
            const { content } = getComputedStyle(element, part);
            if (/^"/.test(content)) found.push(JSON.parse(content));
        }
    }
    return found;
}"""
# What stays English in every language: names, as the literature and programs have them, values of settings, and
# errors, which come from the server.
STAYS = re.compile(
    r"Parley|Markdown|JSON|transformers|gradio_client|curl|default|high|low|Apache-2\.0|CPU|OpenVINO( float32)?"
    r"|Seed must be .*"
)


def look_at_choices(visitor, look):
    view = visitor.page.locator(".view")
    visitor.page.locator("#chat .show-choices").last.click()
    expect(view.locator(".choice .head")).to_be_visible()
    look()
    view.locator(".prompt summary").click()
    view.get_by_role("listbox").first.get_by_role("option").first.click()
    look()
    for part in view.locator(".parts button").all():
        part.click()
        look()
    visitor.tab.keyboard.press("Escape")


def look_at_next_token(visitor, look):
    visitor.choose("strategy", "Sampling")
    view = visitor.page.locator(".view")
    visitor.box.fill("Hello")
    visitor.page.locator("#open-next").click()
    expect(view.locator(".bars li").first).to_be_visible()
    look()
    view.locator(".hide input").check()
    look()
    view.locator(".guess input").fill("I")
    view.locator(".guess button").click()
    expect(view.locator(".said")).not_to_be_empty()
    look()
    visitor.tab.keyboard.press("Escape")
    visitor.box.fill("")


def shown(visitor):
    """The texts of the page in all its states, in parts that are words."""
    found = set()

    def look():
        visitor.tab.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        found.update(visitor.tab.evaluate(SHOWN))

    look()
    visitor.setting("seed").locator("input").fill("7")
    visitor.limit(6)
    visitor.ask("Hello, who are you?")  # with Continue under it
    visitor.quiet.click()
    expect(visitor.folded.get_by_role("link", name="curl")).to_be_visible()
    look()
    for help_button in visitor.page.locator("#settings .help").all():
        if help_button.is_visible():
            help_button.click()
    visitor.page.locator("#more > button").click()
    visitor.questions.first.hover()
    visitor.page.locator('#chat [data-name="Edit"]').first.click()
    look()
    visitor.page.locator('#chat [data-name="Cancel"]').click()
    visitor.page.locator("#show-conversations").click()
    visitor.page.locator("#conversation-list li").first.hover()
    look()
    visitor.tab.keyboard.press("Escape")
    visitor.setting("strategy").locator("input").click()
    expect(visitor.page.get_by_role("option")).to_have_count(len(STRATEGIES))
    look()
    visitor.tab.keyboard.press("Escape")
    visitor.setting("strategy").locator("input").blur()
    visitor.page.locator("#open-compare").click()
    look()
    visitor.page.locator("#compare .sweep summary").click()
    look()
    visitor.page.locator("#compare .lesson").nth(3).click()  # with drafts, and an end that is no end of a sentence
    expect(visitor.page.locator("#compare .announced")).not_to_have_text("")
    look()
    visitor.tab.keyboard.press("Escape")
    for label in ("Watermark: green list", "Diverse beam search", "DoLa", "Prompt lookup", "Contrastive search"):
        visitor.choose("strategy", label)
        visitor.ask("Hello")
        look()
        look_at_choices(visitor, look)
    look_at_next_token(visitor, look)
    visitor.choose("strategy", "Sampling")
    visitor.setting("seed").locator("input").fill("-1")
    visitor.ask("Hello")
    look()
    visitor.tab.set_viewport_size({"width": 390, "height": 800})
    visitor.page.locator("#chip").click()
    look()
    parts = {part.strip() for text in found for line in text.splitlines() for part in re.split(r" · |, ", line)}
    return {part for part in parts if re.search(r"[^\W\d_]{2}", part)}


@pytest.fixture(scope="module")
def english(chromium, inside):
    visitor = Visitor(chromium, inside.url)
    visitor.tab.evaluate("localStorage.clear()")
    texts = shown(visitor)
    visitor.close()
    return texts


@pytest.mark.slow
@pytest.mark.parametrize("language", translations.LANGUAGES)
def test_no_text_of_the_page_stays_english(chromium, inside, english, language):
    visitor = Visitor(chromium, f"{inside.url}/?lang={language}")
    visitor.tab.evaluate("localStorage.clear()")
    texts = shown(visitor)
    left = texts & english
    visitor.close()
    other = translations.read(language)
    assert other["ending.length"] in texts and other["panel.off"] in texts
    assert other["answer.end"].format(ending=other["ending.length"]) in texts
    named = page.english()
    same = [
        re.sub(r"\\{\w+\\}", ".+", re.escape(text))
        for n, text in translations.read(language).items()
        if named[n] == text
    ]
    labels = {row.label for row in (*STRATEGIES.values(), *registry.models().values())}
    assert [
        text for text in sorted(left - labels) if not re.fullmatch("|".join(same), text) and not STAYS.fullmatch(text)
    ] == []
    assert len(english) > 150
