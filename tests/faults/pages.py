"""Faults that the page mends by itself."""

import re
from contextlib import contextmanager

from playwright.sync_api import expect

from tests.browser import Visitor
from tests.faults.world import NONCE, Told

LONG = f"Once upon a time there was a bird named {NONCE} that could count. " * 30


@contextmanager
def server_killed(world):
    """The page takes the answer up again when the app is back."""
    space = world.start()
    visitor = Visitor(world.chromium, space.url)
    visitor.choose("model", "Parrot")
    visitor.limit(4096)

    def answered(text):
        expect(visitor.answer).to_have_text(text.strip())
        visitor.until_free()
        return Told(visitor.answer.inner_text(), "".join(visitor.error.all_inner_texts()))

    def killed():
        visitor.send(LONG)
        expect(visitor.answer).to_have_text(re.compile("Once"))
        space.process.kill()
        space.process.wait()
        world.start(port=space.port)
        return answered(LONG)

    yield killed, lambda: visitor.send("two") or answered("two")
    visitor.close()
