"""An engine of your own is a class with one method, and a row. Run it: python -m examples.own_engine"""

from collections.abc import Iterator

from parley.engines.base import Engine, TurnRequest
from parley.events import Delta
from parley.models.capabilities import PARROT
from parley.models.catalogue.rows import ADDED
from parley.models.spec import ModelSpec
from parley.serving.model_pool import ENGINES


class Backwards(Engine):
    """Says the last message backwards, word by word."""

    def stream(self, request: TurnRequest) -> Iterator[Delta]:
        """Yields a word at a time, and last why the answer ends."""
        for word in reversed(request.messages[-1].content.split()):
            yield Delta(text=f"{word} ")
        yield Delta(finish="end")


ENGINES["backwards"] = lambda spec: Backwards()
ADDED["backwards"] = ModelSpec("backwards", "", "Backwards", engine="backwards", capabilities=PARROT)

if __name__ == "__main__":
    import app

    app.demo.launch(**app.page.LAUNCH)
