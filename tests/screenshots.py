"""Takes the pictures of the README with the weights as they are: python -m tests.screenshots."""

import io

from PIL import Image
from playwright.sync_api import expect

from tests.browser import Visitor, open_chromium
from tests.conftest import ROOT, Space

TALK = ("Hello, who are you?", "My name is Ada.", "What is top-p sampling?", "What is my name?")
PICTURES = {
    "page-light": ({"width": 1280, "height": 800}, TALK),
    "page-dark": ({"width": 1280, "height": 800, "scheme": "dark"}, TALK),
    "page-phone": ({"width": 390, "height": 800}, TALK[:3]),
    "page-embedded": ({"width": 700, "height": 500}, ()),
}


def take(context, url, name, look, talk):
    visitor = Visitor(context, url, **look)
    visitor.setting("seed").locator("input").fill("7")  # the same picture for the same weights
    for question in talk:
        visitor.ask(question)
        expect(visitor.quiet).to_be_visible()
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
    finally:
        space.close()
