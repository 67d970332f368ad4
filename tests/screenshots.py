"""Takes the pictures of the README with the weights as they are: python -m tests.screenshots."""

import io
import re

from PIL import Image
from playwright.sync_api import expect

from parley.ui.views import choices, compare
from tests.browser import Visitor, open_chromium
from tests.conftest import ROOT, Space

TALK = ("Hello, who are you?", "My name is Ada.", "What is top-p sampling?", "What is my name?")
PICTURES = {
    "page-light": ({"width": 1280, "height": 800}, TALK),
    "page-dark": ({"width": 1280, "height": 800, "scheme": "dark"}, TALK),
    "page-phone": ({"width": 390, "height": 800}, TALK[:3]),
    "page-embedded": ({"width": 700, "height": 500}, ()),
}

TEMPERATURE, _, BEAMS, _ = compare.LESSONS
SIZES = {"desktop": (1280, 800), "embedded": (700, 500), "phone": (390, 800)}
LOOKS = {
    f"{name}-{scheme}": {"width": width, "height": height, "scheme": scheme}
    for name, (width, height) in SIZES.items()
    for scheme in ("light", "dark")
}


def take(context, url, name, look, talk):
    visitor = Visitor(context, url, **look)
    with visitor.settings():
        visitor.setting("seed").locator("input").fill("7")  # the same picture for the same weights
    for question in talk:
        visitor.ask(question)
        expect(visitor.quiet).to_be_visible()
    if talk:
        expect(visitor.page.locator("#gauge")).to_have_text(re.compile(r"\d{3} of"))  # with the last answer
    save(visitor, name)


def take_beams(context, url):
    """The table of hypotheses while the search goes on."""
    visitor = Visitor(context, url, width=1280, height=800)
    visitor.choose("strategy", "Beam search")
    visitor.setting("num_beams").locator("input[type=number]").fill("5")
    visitor.send("Tell me a story about an owl.")
    expect(visitor.folded.locator("tbody tr").first).to_have_text(re.compile(r"(\w+\W+){16}"))
    expect(visitor.stop_button).to_be_visible()
    save(visitor, "beams")


def take_comparison(context, url, name, lesson, look):
    """A lesson, when all its columns have ended."""
    visitor = Visitor(context, f"{url}/?view=compare", **look)
    visitor.page.locator("#compare").get_by_role("button", name=lesson.title).click()
    expect(visitor.page.locator("#compare .announced")).to_have_text(compare.TEXTS["over"])
    visitor.page.locator("#compare").evaluate("(box) => { box.scrollTo(0, 0); document.activeElement.blur() }")
    save(visitor, name)


def take_choices(context, url, name, look):
    """How the words of an answer were chosen, with one of them looked at."""
    visitor = Visitor(context, url, **look)
    with visitor.settings():
        visitor.setting("seed").locator("input").fill("7")
    visitor.ask("Tell me a story about an owl.")
    visitor.page.get_by_role("button", name=choices.TEXTS["show"]).click()
    visitor.page.locator(".token-view .tokens").last.locator(".token").nth(8).click()
    visitor.page.locator(".token-view .choice table").wait_for()
    save(visitor, name)


def save(visitor, name):
    visitor.box.evaluate("(box) => { box.blur(); scrollTo(0, 0); document.querySelector('#settings').scrollTo(0, 0) }")
    visitor.tab.mouse.move(0, 0)
    shot = Image.open(io.BytesIO(visitor.tab.screenshot(animations="disabled"))).convert("RGB")
    (ROOT / "docs").mkdir(exist_ok=True)
    shot.quantize(256, dither=Image.Dither.NONE).save(ROOT / "docs" / f"{name}.png", optimize=True)
    visitor.close()


if __name__ == "__main__":
    space = Space(MODEL_IDS="budgie,parrot")
    try:
        with open_chromium() as context:
            for name, (look, talk) in PICTURES.items():
                take(context, space.url, name, look, talk)
            take_beams(context, space.url)
            for name, look in LOOKS.items():
                lesson = BEAMS if name.startswith("embedded") else TEMPERATURE
                take_comparison(context, space.url, f"compare-{name}", lesson, look)
                take_choices(context, space.url, f"choices-{name}", look)
    finally:
        space.close()
