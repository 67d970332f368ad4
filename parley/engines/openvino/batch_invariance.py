"""How many rows a pass may have so that a row's logits do not depend, bit for bit, on its company.

The field's term is batch invariance ("Defeating nondeterminism in LLM inference", Thinking Machines Lab, 2025,
https://thinkingmachines.ai/blog/defeating-nondeterminism-in-llm-inference/). OpenVINO computes a matrix product by
other kernels when it has one row, or many; so a pass has at least two rows and at most as many as `probe` finds.
Attention has two classes that round differently: a sequence with one row in the pass, and one with more (a piece of a
prompt). A token is always computed in the same class: those of a prompt in pieces, those of an answer one by one.
"""

import hashlib
import json
import logging
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from huggingface_hub import constants
from transformers import PreTrainedConfig

from parley.engines.openvino import graph
from parley.engines.openvino.decoder import MAX_ROWS, Decoder, Rows
from parley.engines.openvino.paged_kv import BlockTable
from parley.engines.openvino.weights import QMAX, Precision, Weights, constant_floats, constant_int8
from parley.models.families import read_config

CACHE = Path(constants.HF_HOME) / "parley" / "batch_invariance.json"
LIMITS = (MAX_ROWS, 48, 32, 16, 8)  # rows of a pass, the best first
NOT_FOUND = 0
CHILD_SECONDS = 300.0
BLOCK_ROWS = 1024  # of a random matrix that differ
_log = logging.getLogger(__name__)
_known: dict[str, int] = {}


def max_rows(
    config: PreTrainedConfig, precision: Precision, properties: Mapping[str, Any], cache: Path = CACHE
) -> int:
    """The most rows of a pass for this model on this processor, found once and kept; 0 where there is none.

    Elsewhere than on x86-64 it is found in a process of its own, for nobody knows what the library does there: a
    crash is 0 too.
    """
    key = _key(config, precision, properties)
    if key not in _known:
        _known.update(_read(cache))
    if key not in _known:
        found = probe if platform.machine().lower() in ("x86_64", "amd64") else probe_in_child
        _known[key] = found(config, precision, properties)
        _log.info("%s in %s: %d rows a pass", config.model_type, precision, _known[key])
        _write(cache, key, _known[key])
    return _known[key]


def probe(config: PreTrainedConfig, precision: Precision, properties: Mapping[str, Any]) -> int:
    """See `max_rows`: tries one layer and the head, in the model's own shapes, with random weights."""
    small = first_layer(config)
    model = graph.write(small, RandomWeights(small), precision)
    decoder = Decoder(model, properties, max_rows=MAX_ROWS)
    decoder.make_pool(MAX_ROWS + 16)
    return next((limit for limit in LIMITS if _agree(decoder, limit, config.vocab_size)), NOT_FOUND)


def probe_in_child(config: PreTrainedConfig, precision: Precision, properties: Mapping[str, Any]) -> int:
    """`probe` in a process of its own; 0 when that fails."""
    asked = json.dumps([config.to_dict(), precision, {name: str(value) for name, value in properties.items()}])
    command = [sys.executable, "-m", __name__]
    with suppress(subprocess.TimeoutExpired, OSError, ValueError, IndexError):
        ran = subprocess.run(
            command, input=asked, capture_output=True, text=True, timeout=CHILD_SECONDS, check=False, cwd=_ROOT
        )
        if ran.returncode == 0:
            return int(ran.stdout.strip().splitlines()[-1])
        _log.warning("The probe of OpenVINO ended with %d: %s", ran.returncode, ran.stderr[-500:])
    return NOT_FOUND


_ROOT = Path(__file__).parents[3]


def first_layer(config: PreTrainedConfig) -> PreTrainedConfig:
    """The config of a model with the first layer only."""
    values = config.to_dict() | {"num_hidden_layers": 1}
    for name in ("layer_types", "no_rope_layers"):
        if values.get(name):
            values[name] = values[name][:1]
    return read_config(values)


class RandomWeights(Weights):
    """Weights for a config without files, small enough that nothing overflows."""

    def __init__(self, config: PreTrainedConfig) -> None:
        self._shapes = {n: tuple(p.shape) for n, p in graph.skeleton(config).named_parameters()}
        self._random = np.random.default_rng(0)

    def stored_name(self, name: str) -> str | None:
        """The name itself."""
        return name if name in self._shapes else None

    def shape(self, name: str) -> tuple[int, ...]:
        """As the model has it."""
        return self._shapes[name]

    def vector(self, name: str) -> np.ndarray:
        """Numbers near one."""
        return 1 + 0.1 * self._random.standard_normal(self._shapes[name], np.float32)

    def matrix(self, names: Sequence[str], precision: Precision) -> openvino.Node:
        """One block of rows again and again: what the numbers are does not matter, and drawing them takes time."""
        rows, width = sum(self._shapes[name][0] for name in names), self._shapes[names[0]][1]
        block = self._random.integers(-QMAX, QMAX + 1, (min(rows, BLOCK_ROWS), width), np.int8)
        whole = np.resize(block, (rows, width))
        scale = 1 / (QMAX * width**0.5)
        if precision == "float32":
            return constant_floats(whole.astype(np.float32) * np.float32(scale))
        return constant_int8(whole, np.full((rows, 1), scale, np.float16))


def _agree(decoder: Decoder, limit: int, vocabulary: int) -> bool:
    """Whether rows of both classes are the same in passes of any size from two to `limit` rows."""
    ids = [int(id) for id in np.random.default_rng(1).integers(0, vocabulary, limit + 2)]
    sizes = sorted({2, 3, 8, limit // 2, limit - 1, limit})

    def read(table: BlockTable, count: int) -> np.ndarray:
        return decoder.run([Rows(table, ids[table.length : table.length + count], True, count)]).logits

    # 1. A prompt in pieces of any size.
    table = BlockTable(decoder.pool)
    whole = np.concatenate([read(table, limit), read(table, 2)])
    for size in sizes:
        cut = BlockTable(decoder.pool)
        pieces = np.concatenate([read(cut, size), read(cut, 2)])
        if not np.array_equal(pieces, whole[: size + 2]):
            return False

    # 2. A token of an answer, alone, beside others that decode, and beside a piece.
    first = _decoded(decoder, table, [Rows(table, ids[:1], False)])[0]
    for size in sizes:
        company = [Rows(BlockTable(decoder.pool), [id], False) for id in ids[1:size]]
        piece = Rows(BlockTable(decoder.pool), ids[: size - 1], True)
        for others in (company, [piece] if size > 2 else []):
            if not np.array_equal(_decoded(decoder, table, [Rows(table, ids[:1], False), *others])[0], first):
                return False

    # 3. A draft, whose rows are sequences that share their blocks, and the same one after the other.
    decoder.run([Rows(table, ids[:1], False)])
    second = _decoded(decoder, table, [Rows(table, ids[1:2], False)])[0]
    table.crop(table.length - 1)
    return np.array_equal(_decoded(decoder, table, [Rows(table, ids[:2], False, 2)]), np.stack([first, second]))


def _decoded(decoder: Decoder, table: BlockTable, batch: Sequence[Rows]) -> np.ndarray:
    """The logits of a pass; `table` is as before."""
    held = table.length
    made = decoder.run(batch).logits
    table.crop(held)
    return made


def _key(config: PreTrainedConfig, precision: Precision, properties: Mapping[str, Any]) -> str:
    """What the result depends on: processor, version, shapes, threads and hints."""
    core = openvino.Core()
    processor = [core.get_property("CPU", name) for name in ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")]
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor += [line for line in lines if line.startswith(("flags", "Features"))][:1]
    shapes = {n: list(p.shape) for n, p in graph.skeleton(first_layer(config)).named_parameters()}
    known = [openvino.__version__, platform.machine(), processor, shapes, precision, sorted(properties.items())]
    return hashlib.sha256(json.dumps(known, default=str, sort_keys=True).encode()).hexdigest()[:24]


def _read(cache: Path) -> dict[str, int]:
    with suppress(OSError, ValueError, TypeError, AttributeError):  # the latter for JSON that is something else
        read = json.loads(cache.read_text("utf-8"))
        return {str(key): int(value) for key, value in read.items()}
    return {}


def _write(cache: Path, key: str, rows: int) -> None:
    """Adds to the file; where that cannot be written, the process remembers."""
    with suppress(OSError):
        cache.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=cache.parent, delete=False, encoding="utf-8") as file:
            json.dump(_read(cache) | {key: rows}, file)
        Path(file.name).replace(cache)


if __name__ == "__main__":
    given, wanted, hints = json.loads(sys.stdin.read())
    print(probe(read_config(given), wanted, hints))
