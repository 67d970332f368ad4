"""Conversations in the browser: they survive whatever happens to the page, and nothing in them is overwritten."""

import itertools
import json
import os
import re
import signal

import httpx2
import pytest
from playwright.sync_api import expect

from tests.browser import Visitor
from tests.conftest import Space, until
from tests.ui.test_accessibility import COMPOSED

pytest_plugins = ["tests.browser"]
pytestmark = pytest.mark.slow

WORDS = re.compile(r"\w+ \w+ \w+ \w+ \w+ \w+")
LONG = 900  # tokens, which take some seconds


@pytest.fixture(autouse=True)
def empty_storage(visitor):
    visitor.tab.evaluate("localStorage.clear()")


class Kept:
    """The list of conversations as a visitor uses it."""

    def __init__(self, visitor):
        self.visitor, self.page = visitor, visitor.page
        self.dialog = self.page.get_by_role("dialog", name="Conversations")
        self.entries = self.dialog.locator("li > .name")

    def show(self):
        self.page.get_by_role("button", name="Conversations", exact=True).click()
        return self

    def press(self, label, entry=0):
        item = self.dialog.locator("li").nth(entry)
        item.hover()
        item.get_by_role("button", name=label, exact=True).click()

    def close(self):
        self.dialog.get_by_role("button", name="Close").click()


def stored(visitor):
    keys = "Object.keys(localStorage).filter((key) => key.startsWith('parley.conversation.'))"
    return [json.loads(each) for each in visitor.tab.evaluate(f"{keys}.map((key) => localStorage[key])")]


def wait_until_stored(visitor, holds):
    """Until the newest conversation in the storage holds."""
    visitor.tab.wait_for_function(
        f"() => Object.keys(localStorage).some((key) => key.startsWith('parley.conversation.') && ({holds})"
        "(JSON.parse(localStorage[key])))"
    )


FINISHED = "(kept) => Object.values(kept.nodes).at(-1)?.stored?.finish"


def test_a_conversation_survives_a_reload_with_its_settings_and_the_draft(visitor):
    visitor.limit(12)
    visitor.ask("Hello, who are you?")
    visitor.tab.evaluate(
        "document.querySelector('#remake-details').addEventListener('click', () => { window.remade = 1 })"
    )
    visitor.quiet.click()  # the details of a new answer are there
    expect(visitor.folded.last).to_contain_text("Seed: ")
    assert visitor.tab.evaluate("window.remade") is None
    visitor.box.fill("a draft")
    wait_until_stored(visitor, "(kept) => kept.draft === 'a draft'")
    said = visitor.answer.inner_text()
    visitor.tab.reload()
    expect(visitor.questions).to_have_text(["Hello, who are you?"])
    expect(visitor.answer).to_have_text(said)
    expect(visitor.box).to_have_value("a draft")
    expect(visitor.setting("max_new_tokens").locator("input[type=number]")).to_have_value("12")
    expect(visitor.quiet).to_have_text(re.compile("12 tokens"))
    (kept,) = stored(visitor)
    made = next(node["stored"] for node in kept["nodes"].values() if node["role"] == "assistant")
    assert len(made["ids"]) == 12 and made["settings"]["seed"] is not None and made["finish"] == "length"
    assert made["system_fingerprint"].startswith("fp_")
    assert "apply_chat_template" not in json.dumps(kept)
    visitor.quiet.click()  # the details are not stored, and made anew
    expect(visitor.folded.last).to_contain_text(f"Seed: {made['settings']['seed']}")
    expect(visitor.folded.last).to_contain_text("apply_chat_template")
    visitor.box.fill("")
    visitor.ask("and then?")
    expect(visitor.questions).to_have_count(2)


def test_the_list_makes_new_ones_renames_finds_deletes_and_brings_back(visitor):
    visitor.ask("Tell me a story about an owl.")
    visitor.page.get_by_role("button", name="New conversation", exact=True).click()
    expect(visitor.questions).to_have_count(0)
    visitor.ask("What is top-p sampling?")
    kept = Kept(visitor).show()
    expect(kept.entries).to_have_text(["What is top-p sampling?", "Tell me a story about an owl."])
    kept.press("Rename", 1)
    kept.dialog.get_by_role("textbox", name="Rename").fill("The owl")
    kept.dialog.get_by_role("textbox", name="Rename").evaluate(COMPOSED)  # these keys belong to the input method
    kept.dialog.get_by_role("textbox", name="Rename").press("Enter")
    expect(kept.entries).to_have_text(["What is top-p sampling?", "The owl"])
    kept.dialog.get_by_role("searchbox").fill("owl")
    expect(kept.entries).to_have_text(["The owl"])
    kept.dialog.get_by_role("searchbox").fill("")
    kept.press("Delete", 1)
    expect(kept.entries).to_have_text(["What is top-p sampling?"])
    assert len(stored(visitor)) == 1
    kept.dialog.get_by_role("button", name="Undo").click()
    expect(kept.entries).to_have_text(["What is top-p sampling?", "The owl"])
    kept.entries.nth(1).click()
    expect(visitor.questions).to_have_text(["Tell me a story about an owl."])


def reference(visitor, inside):
    """The whole answer that comes without a break."""
    visitor.choose("model", "endless")
    visitor.limit(LONG)
    visitor.setting("seed").locator("input").fill("7")
    visitor.setting("seed").locator("input").press("Tab")
    visitor.ask("Hello")
    return visitor.answer.inner_text()


def test_a_reload_in_the_middle_of_an_answer_changes_no_word_of_it(visitor, inside):
    whole = reference(visitor, inside)
    visitor.page.get_by_role("button", name="New conversation", exact=True).click()
    expect(visitor.questions).to_have_count(0)
    visitor.send("Hello")
    expect(visitor.answer).to_have_text(WORDS)
    wait_until_stored(visitor, "(kept) => Object.values(kept.nodes).at(-1)?.stored?.finish === null")
    visitor.tab.reload()
    expect(visitor.quiet).to_have_text(re.compile(rf"{LONG:,} tokens"))
    visitor.until_free()
    assert visitor.answer.inner_text() == whole
    expect(visitor.questions).to_have_count(1)


STORED_EACH_SECOND = """() => {
    const { setItem } = Storage.prototype, words = () => document.querySelector("#chat").textContent.length;
    let writes = 0, shown = words();
    window.seconds = [];  // in each one, whether the answer grew, and how often it was stored
    Storage.prototype.setItem = function (key, value) {
        if (key.startsWith("parley.conversation.")) writes += 1;
        return setItem.call(this, key, value);
    };
    setInterval(() => {
        window.seconds.push([words() > shown, writes]);
        [writes, shown] = [0, words()];
    }, 1000);
}"""


def test_an_answer_is_stored_in_each_second_of_it(visitor):
    visitor.choose("model", "endless")
    visitor.limit(4096)
    visitor.send("Hello")
    expect(visitor.answer).to_have_text(WORDS)
    wait_until_stored(visitor, "(kept) => Object.values(kept.nodes).at(-1)?.stored?.finish === null")
    visitor.tab.evaluate(STORED_EACH_SECOND)
    visitor.tab.wait_for_function("() => window.seconds.filter(([grew]) => grew).length >= 4")
    seconds = visitor.tab.evaluate("window.seconds")
    visitor.stop_button.click()
    visitor.until_free()
    for (grew, writes), (_, after) in itertools.pairwise(seconds):
        assert writes + after or not grew  # what came late in one second is stored in the next


@pytest.mark.parametrize("words_were_shown", [True, False])
def test_where_it_spends_the_visitor_s_seconds_one_click_goes_on(visitor, inside, words_were_shown):
    visitor.choose("model", "endless")
    visitor.limit(4096)
    visitor.send("Hello")
    expect(visitor.answer).to_have_text(WORDS)
    wait_until_stored(visitor, "(kept) => Object.values(kept.nodes).at(-1)?.stored?.finish === null")
    html = httpx2.get(inside.url).text.replace('"asks": false', '"asks": true')  # as on ZeroGPU
    visitor.tab.route(f"{inside.url}/", lambda route: route.fulfill(body=html, content_type="text/html"))
    if not words_were_shown:
        visitor.tab.evaluate(ONLY_THE_QUESTION)
    visitor.tab.reload()
    expect(visitor.questions).to_have_text(["Hello"])
    expect(visitor.setting("max_new_tokens").locator("input[type=number]")).to_have_value("4096")
    visitor.limit(3)
    visitor.press("Continue" if words_were_shown else "Retry")
    expect(visitor.quiet).to_have_text(re.compile("3 tokens"))


ONLY_THE_QUESTION = """() => {
  const key = Object.keys(localStorage).find((each) => each.startsWith("parley.conversation."));
  const kept = JSON.parse(localStorage[key]);
  kept.path.pop();
  addEventListener("pagehide", () => localStorage.setItem(key, JSON.stringify({ ...kept, saved: kept.saved })));
}"""


def test_a_killed_server_changes_no_word_of_an_answer(chromium, tmp_path):
    space = Space(MODEL_IDS="budgie")
    visitor = Visitor(chromium, space.url)
    try:
        visitor.limit(400)
        visitor.setting("seed").locator("input").fill("11")
        visitor.setting("seed").locator("input").press("Tab")
        visitor.ask("Tell me a story about an owl.")
        whole = visitor.answer.inner_text()
        visitor.press("Retry")
        expect(visitor.answer).to_have_text(re.compile(r"\w+ \w+"))
        os.kill(space.process.pid, signal.SIGKILL)
        space.process.wait()
        again = Space(space.port, MODEL_IDS="budgie")
        visitor.until_free()
        expect(visitor.answer).to_have_text(whole)
        again.close()
    finally:
        visitor.close()
        space.close()


def test_retry_and_edit_keep_what_was_there(visitor):
    visitor.limit(4)  # so the line of figures is long, because each answer reaches it
    visitor.ask("Hello, who are you?")
    first = visitor.answer.inner_text()
    visitor.ask("and then?")
    visitor.page.locator("#chat .user-row").first.hover()
    visitor.page.get_by_role("button", name="Edit", exact=True).first.click()
    box = visitor.page.locator("#chat .user-row textarea")
    box.fill("Tell me a story about an owl.")
    visitor.page.get_by_role("button", name="Submit", exact=True).click()
    expect(visitor.questions).to_have_text([re.compile("Tell me a story")])
    visitor.until_free()
    versions = visitor.page.get_by_role("group", name="Versions")
    expect(versions).to_have_attribute("data-label", "2/2")
    versions.get_by_role("button", name="Earlier version").click()
    expect(visitor.questions).to_have_text([re.compile("Hello, who are you"), re.compile("and then")])
    visitor.press("Retry")
    expect(versions).to_have_count(2)
    visitor.until_free()
    expect(versions.last).to_have_attribute("data-label", "2/2")
    versions.last.get_by_role("button", name="Earlier version").click()
    expect(versions.last).to_have_attribute("data-label", "1/2")
    assert first in visitor.page.locator("#chat").inner_text()


def test_an_answer_can_be_edited_and_goes_on_from_there(visitor):
    visitor.limit(8)
    visitor.ask("Hello, who are you?")
    visitor.page.locator("#chat .bot-row").first.hover()
    visitor.page.get_by_role("button", name="Edit", exact=True).nth(1).click()
    visitor.page.locator("#chat .bot-row textarea").fill("I am an owl, and")
    visitor.page.get_by_role("button", name="Submit", exact=True).click()
    expect(visitor.answer).to_have_text("I am an owl, and")
    visitor.press("Go on from here")
    visitor.until_free()
    expect(visitor.answer).to_have_text(re.compile(r"^I am an owl, and\s?\S+"))
    expect(visitor.page.get_by_role("group", name="Versions")).to_have_attribute("data-label", "2/2")


def test_a_conversation_goes_into_a_file_and_back(visitor, tmp_path):
    visitor.limit(8)
    visitor.ask("Hello, who are you?")
    said = visitor.answer.inner_text()
    kept = Kept(visitor).show()
    with visitor.tab.expect_download() as download:
        kept.press("Save as JSON")
    file = tmp_path / "talk.json"
    download.value.save_as(file)
    content = json.loads(file.read_text())
    assert [each["role"] for each in content["messages"]] == ["user", "assistant"]
    assert content["messages"][1]["content"].strip() == said.strip() and content["parley"]["answers"][1]["ids"]
    with visitor.tab.expect_download() as download:
        kept.press("Save as Markdown")
    assert "**You**\n\nHello, who are you?" in download.value.path().read_text()
    content["parley"]["answers"][1]["system_fingerprint"] = "fp_of_another_machine"
    file.write_text(json.dumps(content))
    kept.dialog.locator("input[type=file]").set_input_files(file)
    expect(visitor.page.locator("#conversation-note")).to_contain_text("made with another model file")
    kept.close()
    expect(visitor.questions).to_have_text(["Hello, who are you?"])
    visitor.ask("and then?")
    expect(visitor.questions).to_have_count(2)
    assert len(stored(visitor)) == 2


def test_two_tabs_do_not_overwrite_one_another(visitor, visit):
    visitor.limit(8)
    visitor.ask("Hello, who are you?")
    wait_until_stored(visitor, FINISHED)
    other = visit()
    Kept(other).show().entries.first.click()
    expect(other.questions).to_have_count(1)
    other.limit(8)
    other.ask("from the other tab")
    wait_until_stored(other, "(kept) => Object.keys(kept.nodes).length === 4")
    visitor.ask("from the first tab")
    expect(visitor.page.locator("#conversation-note")).to_contain_text("goes on with a copy")
    until(lambda: sorted(len(each["nodes"]) for each in stored(visitor)) == [4, 4])


def test_a_full_storage_is_said_and_nothing_is_deleted(visitor):
    visitor.limit(8)
    visitor.ask("Hello, who are you?")
    wait_until_stored(visitor, FINISHED)
    visitor.tab.evaluate(
        "() => { let n = 0; for (let size = 2 ** 20; size; size >>= 1) for (;;)"
        " try { localStorage.setItem(`filler${n++}`, 'x'.repeat(size)) } catch (_) { break } }"
    )
    visitor.ask("and then?")
    expect(visitor.page.locator("#conversation-note")).to_contain_text("storage is full")
    expect(visitor.questions).to_have_count(2)
    assert len(stored(visitor)) == 1
    visitor.tab.evaluate(
        "() => Object.keys(localStorage).filter((key) => key.startsWith('filler'))"
        ".forEach((key) => localStorage.removeItem(key))"
    )
