"""Records the moving picture of the README, a comparison with live beams: python -m tests.moving_picture."""

import io

from PIL import Image

from benchmarks.real_model import folder
from parley.ui.views import compare
from tests.browser import Visitor, open_chromium
from tests.conftest import ROOT, Space

FRAMES, PAUSE = 50, 150  # so many pictures, and milliseconds between two of them
SIZE = 960, 600
MAX_BYTES = 2_000_000


def frames(visitor):
    """Pictures of the comparison while it runs, and a few of its end."""
    over = visitor.page.locator("#compare .announced", has_text=compare.TEXTS["over"])
    last = 8
    for _ in range(FRAMES):
        yield Image.open(io.BytesIO(visitor.tab.screenshot())).convert("RGB").resize(SIZE, Image.Resampling.LANCZOS)
        if over.count():
            last -= 1
        if not last:
            return
        visitor.tab.wait_for_timeout(PAUSE)


def main():
    """The command line."""
    lesson = next(row for row in compare.LESSONS if row.name == "beams")
    space = Space(MODEL_IDS=str(folder()))
    try:
        with open_chromium() as context:
            visitor = Visitor(context, f"{space.url}/?view=compare")
            visitor.page.locator("#compare").get_by_role("button", name=lesson.title).click()
            made = list(frames(visitor))
    finally:
        space.close()
    path = ROOT / "docs" / "compare.webp"
    made[0].save(path, save_all=True, append_images=made[1:], duration=PAUSE + 100, loop=0, quality=60, method=4)
    assert path.stat().st_size < MAX_BYTES
    print(f"{len(made)} pictures, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
