"""The page as a visitor sees it: a real Chromium against the app, which runs in this process to be looked into."""

import itertools
import json
import re
import shutil
import threading

import gradio as gr
from playwright.sync_api import expect

from parley.serving import turn
from parley.settings import OPTIONS
from parley.ui import controls
from tests.browser import QUIET
from tests.conftest import ROOT, Passes, until

pytest_plugins = ["tests.browser"]

STORY = "Once upon a time there was a bird that could count. " * 8
WORDS = re.compile(r"\w{2,}")


def test_an_example_starts_a_talk_and_one_quiet_line_stands_under_the_answer(visitor):
    visitor.page.get_by_role("button", name="Hello, who are you?").click()
    expect(visitor.questions).to_have_text("Hello, who are you?")
    expect(visitor.quiet).to_have_text(QUIET)
    assert visitor.answer.inner_text().strip()
    details = visitor.folded.last.locator("ul")
    expect(details).to_be_hidden()
    visitor.quiet.click()
    answer = r"Answer: \d+ tokens in \d+\.\d s, the first after \d\.\d\d s"
    expect(details).to_have_text(re.compile(rf"Prompt: \d+ tokens\s+{answer}\s+End: finished\s.*Seed: \d+", re.DOTALL))


def test_an_example_leaves_what_is_in_the_box(parrot):
    parrot.box.fill("my own thought")
    parrot.page.get_by_role("button", name="Hello, who are you?").click()
    expect(parrot.answer).to_have_text("Hello, who are you?")
    expect(parrot.box).to_have_value("my own thought")


def test_an_answer_grows_on_the_page_before_it_ends(parrot):
    parrot.tab.evaluate(
        """() => { window.lengths = new Set(); new MutationObserver(() => {
            const said = document.querySelector('#chat .bot-row:not(:has(.thought-group)) .prose');
            if (said) window.lengths.add(said.textContent.trim().length);
        }).observe(document.querySelector('#chat'), {subtree: true, childList: true, characterData: true}) }"""
    )
    parrot.ask(STORY)
    expect(parrot.answer).to_have_text(STORY.strip())
    lengths = parrot.tab.evaluate("[...window.lengths]")
    assert len(lengths) > 3
    assert lengths == sorted(lengths)


def test_stop_keeps_the_text_and_the_talk_goes_on_from_it(chatterbox, inside):
    visitor, passes = chatterbox
    engine = inside.engine("endless")
    visitor.send("hello")
    expect(visitor.answer).to_have_text(WORDS)
    visitor.stop_button.click()
    until(lambda: not turn.running())
    expect(visitor.quiet).to_have_text(re.compile("· stopped"))
    visitor.until_free()
    kept, counted = visitor.answer.inner_text(), passes.count
    visitor.send("and then?")
    until(lambda: passes.count > counted)
    visitor.stop_button.click()
    visitor.until_free()
    (session,) = visitor.sessions
    until(lambda: "and then?" in engine.loaded.tokenizer.decode(list(engine.prefix_cache.sequence(session))))
    talk = engine.loaded.tokenizer.decode(list(engine.prefix_cache.sequence(session)))
    assert " ".join(kept.split())[:40] in " ".join(talk.split())
    assert counted < 900, "it would have run to the end of the context"


def test_a_closed_tab_ends_the_model(chatterbox):
    visitor, passes = chatterbox
    visitor.send("hello")
    expect(visitor.answer).to_have_text(WORDS)
    visitor.close()
    until(lambda: not turn.running())
    assert passes.count < 900


def test_retry_answers_the_last_question_again(visitor, inside):
    visitor.ask("hello")
    with Passes(inside.engine("budgie").loaded.model) as passes:
        visitor.press("Retry")
        until(lambda: passes.count)
        expect(visitor.quiet).to_have_text(QUIET)
    expect(visitor.questions).to_have_text(["hello"])
    expect(visitor.folded).to_have_count(1)


def test_undo_takes_the_last_question_back_into_the_box(parrot):
    parrot.ask("one")
    parrot.ask("two")
    parrot.press("Undo")
    expect(parrot.box).to_have_value("two")
    expect(parrot.questions).to_have_text(["one"])
    expect(parrot.answer).to_have_text("one")


def test_an_edited_question_is_answered_again_and_what_followed_it_is_gone(parrot):
    parrot.ask("one")
    parrot.ask("two")
    parrot.questions.first.hover()
    parrot.page.get_by_role("button", name="Edit").first.click()
    parrot.page.locator("#chat .user-row textarea").fill("three")
    parrot.press("Submit")
    expect(parrot.questions).to_have_text([re.compile("three")])
    expect(parrot.answer).to_have_text("three")
    expect(parrot.quiet).to_have_text(QUIET)


def test_copy_takes_the_answer(parrot):
    parrot.context.grant_permissions(["clipboard-read", "clipboard-write"])
    parrot.ask("<think>Polly thinks</think>Polly wants\n\n* a **cracker**")
    parrot.press("Copy message")
    assert parrot.tab.evaluate("navigator.clipboard.readText()").strip() == "Polly wants\n\n* a **cracker**"


def test_clearing_while_an_answer_runs_leaves_an_empty_page_that_works(parrot):
    parrot.limit(4096)
    parrot.send(STORY * 20)
    expect(parrot.answer).to_have_text(re.compile("Once"))
    parrot.press("New conversation")
    parrot.until_free()
    expect(parrot.questions).to_have_count(0)
    until(lambda: not turn.running())
    parrot.ask("again")
    expect(parrot.questions).to_have_text(["again"])
    expect(parrot.answer).to_have_text("again")


def test_what_is_typed_while_an_answer_runs_stays_in_the_box(parrot):
    parrot.limit(4096)
    parrot.send(STORY * 20)
    expect(parrot.stop_button).to_be_visible()
    parrot.send("my next thought")
    parrot.stop_button.click()
    parrot.until_free()
    expect(parrot.quiet).to_have_text(re.compile("stopped"))
    expect(parrot.box).to_have_value("my next thought")
    expect(parrot.questions).to_have_count(1)


def test_a_message_that_does_not_fit_stands_there_with_a_sentence_and_retry_works(visitor):
    visitor.ask("word " * 3000)
    expect(visitor.error).to_have_text(re.compile(r"needs \d+ tokens, but Budgie.* reads at most \d+"))
    assert visitor.questions.inner_text().count("word") == 3000
    visitor.choose("model", "Parrot")
    visitor.limit(5)
    visitor.press("Retry")
    expect(visitor.quiet).to_have_text(re.compile("reached max new tokens"))
    expect(visitor.error).to_have_count(0)


def test_an_exception_in_the_model_keeps_the_partial_answer_and_reaches_the_page(visitor, inside):
    """The forward pass of the real engine raises, as a GPU that fails does, once some of the answer is shown."""
    decoder = inside.engine("endless").loaded.model.decoder
    armed, run, passes = threading.Event(), decoder.run, itertools.count()

    def explode(*given, **named):
        if next(passes) == 40:  # some of the answer was sent; it goes no further before the page has shown it
            armed.wait()
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return run(*given, **named)

    visitor.choose("model", "endless")
    decoder.run = explode
    try:
        visitor.send("tell me everything")
        expect(visitor.answer).to_have_text(WORDS)
        armed.set()
        expect(visitor.error).to_have_text(re.compile("Something went wrong inside Parley"))
    finally:
        del decoder.run  # the method of the class is there again
    visitor.until_free()
    expect(visitor.questions).to_have_text(["tell me everything"])
    assert len(visitor.answer.inner_text()) > 1
    assert "CUDA" not in visitor.page.locator("body").inner_text()
    visitor.choose("model", "Budgie")
    visitor.press("Retry")
    expect(visitor.quiet).to_have_text(QUIET)
    expect(visitor.error).to_have_count(0)


def test_when_the_server_cannot_take_a_turn_the_question_stands_and_retry_works(parrot):
    with parrot.refused():
        parrot.send("are you there?")
    expect(parrot.error).to_have_text(re.compile("could not take this turn"))
    parrot.until_free()
    expect(parrot.questions).to_have_text(["are you there?"])
    parrot.press("Retry")
    expect(parrot.answer).to_have_text("are you there?")


def test_a_second_visitor_sees_their_place_in_the_line_and_can_leave_it(chatterbox, visit, inside, one_place):
    first, _ = chatterbox
    first.send("hello")
    expect(first.answer).to_have_text(WORDS)
    second = visit()
    second.choose("model", "endless")
    second.send("hello")
    place = re.compile(r"Waiting for a free place: you are number 1 in the line, about \d+ s")
    expect(second.quiet).to_have_text(place)
    second.stop_button.click()
    expect(second.quiet).to_have_text(re.compile("stopped"))
    until(lambda: inside.waiting() == 0)
    expect(second.questions).to_have_text(["hello"])
    second.press("Retry")
    expect(second.quiet).to_have_text(place)
    second.stop_button.click()
    second.until_free()
    expect(second.questions).to_have_text(["hello"])
    first.stop_button.click()
    first.until_free()


def test_the_line_says_what_ran_beside_the_answer(chatterbox, visit):
    first, _ = chatterbox
    first.send("hello")
    expect(first.answer).to_have_text(WORDS)
    second = visit()
    second.choose("model", "endless")
    second.limit(8)
    second.ask("hello")
    second.quiet.click()
    expect(second.folded.last.locator("ul")).to_contain_text(re.compile(r"Beside 1 other answer: \d+ tokens/s in all"))
    first.stop_button.click()
    first.until_free()


def test_settings_that_a_strategy_does_not_use_are_hidden(visitor):
    drawn = ("temperature", "top_p", "top_k", "min_p", "seed")
    visitor.choose("strategy", "Sampling")
    for name in drawn:
        expect(visitor.setting(name)).to_be_visible()
    expect(visitor.setting("seed").locator("input")).to_have_value("")
    visitor.choose("strategy", "Greedy")
    for name in drawn:
        expect(visitor.setting(name)).to_be_hidden()
    visitor.page.get_by_role("button", name="More settings").click()
    for name in ("repetition_penalty", "max_new_tokens", "stop", "system_prompt"):
        expect(visitor.setting(name)).to_be_visible()
    expect(visitor.setting("typical_p")).to_be_hidden()


def test_the_thinking_switch_is_there_only_for_a_template_that_reads_one(visitor):
    switch = visitor.setting("thinking").locator("input")
    switch.check()
    visitor.choose("model", "Parrot")
    expect(switch).to_be_hidden()
    visitor.ask("I have no such switch, and am not asked to think")
    expect(visitor.answer).to_have_text("I have no such switch, and am not asked to think")
    visitor.choose("model", "Budgie")
    expect(switch).to_be_visible()
    expect(switch).not_to_be_checked()


def test_a_template_without_the_switch_hides_it_and_the_models_own_sampling_is_the_default(tmp_path, monkeypatch):
    folder = tmp_path / "plain"
    shutil.copytree(ROOT / "parley" / "budgie" / "weights", folder)
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
    (folder / "generation_config.json").write_text(
        json.dumps({"do_sample": True, "temperature": 0.3, "top_p": 0.8, "top_k": 20})
    )
    monkeypatch.setenv("MODEL_IDS", f"budgie,{folder}")
    budgie, plain = (dict(zip(OPTIONS, controls.for_model(name), strict=True)) for name in ("budgie", folder.name))
    assert budgie["thinking"]["visible"] and not plain["thinking"]["visible"]
    assert plain["thinking"]["value"] is False
    assert [plain[n]["value"] for n in ("strategy", "temperature", "top_p", "top_k")] == ["sampling", 0.3, 0.8, 20]
    assert plain["min_p"]["value"] == OPTIONS["min_p"].default


def test_how_a_model_is_run_and_what_it_takes_stands_over_its_name(visitor, inside):
    expect(visitor.setting("model")).to_contain_text(inside.engine("budgie").loaded.plan.sentence)
    visitor.choose("model", "Parrot")
    expect(visitor.setting("model")).to_contain_text("Apache-2.0")
    expect(visitor.setting("model")).not_to_contain_text("memory")


def test_any_model_can_be_typed_where_the_owner_allows_it(monkeypatch):
    monkeypatch.setenv("MODEL_IDS", "budgie")
    with gr.Blocks():
        assert not controls.controls()["model"].allow_custom_value
        monkeypatch.setenv("ALLOW_ANY_MODEL", "1")
        assert controls.controls()["model"].allow_custom_value
    updates = dict(zip(OPTIONS, controls.for_model("not a name"), strict=True))
    assert "'not a name' is not the name of a model" in updates["model"]["info"]
    assert "value" not in updates["temperature"]
    assert len(controls.for_strategy("greedy", "not a name")) == len(OPTIONS)


def test_a_thought_is_folded(parrot):
    parrot.ask("<think>a secret thought</think>The answer is 7.")
    expect(parrot.answer).to_have_text("The answer is 7.")
    thought = parrot.folded.first
    expect(thought.locator(".title")).to_have_text("Thought")
    expect(thought.get_by_text("a secret thought")).to_be_hidden()
    thought.locator(".title").click()
    expect(thought.get_by_text("a secret thought")).to_be_visible()
