"""The models that are measured, each loaded in every way in which it is compared, and only where that is asked for."""

import contextlib
import functools
import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks import peers, real_model, shapes
from parley.engines.loader import load
from parley.engines.local_engine import LocalEngine
from parley.generation.loaded_model import LoadedModel
from parley.models import load_plan, registry
from parley.models.spec import ModelSpec
from parley.serving.model_pool import local_engine

SMOLLM2, BUDGIE = "SmolLM2-135M-Instruct", "Budgie"


def apart(work: Callable[..., Any], *given: object) -> Any:
    """`work(*given)` in a thread that ends, and its team of OpenMP threads with it: where two threads have one,
    they wait for each other's cores, and all that is measured afterwards runs at half its speed.
    """
    with ThreadPoolExecutor(1) as worker:
        return worker.submit(work, *given).result()


def loaded(row: ModelSpec, threads: int = 0, **environ: str) -> LoadedModel:
    """A model as these variables of the environment have it loaded, the plan's own choice where there are none;
    `threads` of OpenVINO, where it is not for the plan to say.
    """
    here = load_plan.machine()
    here = replace(here, threads=threads or here.threads)
    with mock.patch.dict(os.environ, environ), mock.patch.object(load_plan, "machine", lambda: here):
        return apart(load, row, lambda _: None, threading.Event())


def engine(row: ModelSpec, threads: int = 0, **environ: str) -> LocalEngine:
    """Its engine."""
    return local_engine(loaded(row, threads, **environ))


class Model:
    """One model. What it is compared with is loaded when it is first asked for."""

    def __init__(self, name: str, row: ModelSpec, others: tuple[str, ...] = ()) -> None:
        """`others`: the formats of llama.cpp in which it is measured as well."""
        self.name, self.row, self._others = name, row, others

    @functools.cached_property
    def engine(self) -> LocalEngine:
        """What a visitor gets."""
        return engine(self.row)

    @functools.cached_property
    def plain(self) -> LoadedModel:
        """A model of transformers in 32-bit floats."""
        return loaded(self.row, ENGINE="transformers", QUANTIZATION="none")

    @functools.cached_property
    def llama_cpp(self) -> dict[str, peers.LlamaCpp]:
        """By the name of the format; empty where llama.cpp cannot run."""
        opened = {kind: peers.LlamaCpp(self._gguf[kind]) for kind in self._others if self._gguf}
        for peer in opened.values():
            self._stack.callback(peer.close)
        return opened

    @functools.cached_property
    def llama_many(self) -> peers.LlamaCppMany | None:
        """llama.cpp for many chats at once, in Q8_0; None where it cannot run."""
        if "q8" not in self._others or not self._gguf:
            return None
        peer = peers.LlamaCppMany(self._gguf["q8"])
        self._stack.callback(peer.close)
        return peer

    @functools.cached_property
    def _gguf(self) -> dict[str, Path]:
        """Its files for llama.cpp; none where that cannot run."""
        if not self._others or peers.missing():
            return {}
        folder = self._stack.enter_context(tempfile.TemporaryDirectory())
        return apart(peers.write, Path(self.row.id), Path(folder))

    @functools.cached_property
    def _stack(self) -> contextlib.ExitStack:
        return contextlib.ExitStack()

    def close(self) -> None:
        """Gives up all that was loaded."""
        self._stack.close()
        for name in ("engine", "plain", "llama_cpp", "llama_many", "_gguf", "_stack"):
            self.__dict__.pop(name, None)


class Models:
    """All that are measured."""

    def __init__(self, folder: Path, formats: tuple[str, ...] = ()) -> None:
        """`folder`: where there is room for a model in the shape of a real one; `formats`: of llama.cpp, to compare
        with.
        """
        self._folder, self._formats = folder, formats

    @functools.cached_property
    def budgie(self) -> Model:
        """The bundled one."""
        return Model(BUDGIE, registry.find("budgie"))

    @functools.cached_property
    def budgie_draft(self) -> Model:
        """That which drafts tokens for it."""
        return Model("Budgie's draft", registry.DRAFT)

    @functools.cached_property
    def smollm2(self) -> Model:
        """The real one."""
        return Model(SMOLLM2, ModelSpec(SMOLLM2, str(real_model.folder()), SMOLLM2), self._formats)

    @functools.cached_property
    def qwen3(self) -> Model:
        """A shape; see `shapes`."""
        folder = apart(shapes.save, self._folder / "qwen3")
        return Model(shapes.QWEN3_600M, ModelSpec("qwen3", str(folder), shapes.QWEN3_600M), self._formats[:1])

    def large(self, shapes: bool) -> Iterator[Model]:
        """The real one, and with `shapes` that in the shape of a larger one."""
        yield self.smollm2
        if shapes:
            yield self.qwen3

    def close(self) -> None:
        """Gives up all that was loaded."""
        for made in vars(self).values():
            if isinstance(made, Model):
                made.close()


@contextlib.contextmanager
def all_models(formats: Iterable[str] = ()) -> Iterator[Models]:
    """For the length of a `with` block; `formats` as above, the model that is only a shape in the first of them."""
    with tempfile.TemporaryDirectory() as folder:
        made = Models(Path(folder), tuple(formats))
        try:
            yield made
        finally:
            made.close()
