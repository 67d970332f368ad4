"""Finds how many rows a pass may have so that the logits of a row do not depend, in any bit, on the other rows.

This is batch invariance ("Defeating nondeterminism in LLM inference", Thinking Machines Lab, 2025,
https://thinkingmachines.ai/blog/defeating-nondeterminism-in-llm-inference/). OpenVINO uses other matrix kernels for
one row and for many rows, with other rounding. So a pass has at least two rows, and at most as many as `probe` finds.
Attention has two modes that round differently: decode (a sequence with one row in the pass) and prefill (a sequence
with several rows, a chunk of a prompt). Each token is always computed in the same mode: the tokens of a prompt in
prefill chunks, the tokens of an answer in decode mode.
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
from parley.engines.openvino.decoder import MAX_ROWS, Decoder, PassInput
from parley.engines.openvino.paged_kv import BlockTable
from parley.engines.openvino.weights import QMAX, Precision, Weights, constant_floats, constant_int8
from parley.models.families import read_config

CACHE = Path(constants.HF_HOME) / "parley" / "batch_invariance.json"
LIMITS = (MAX_ROWS, 48, 32, 16, 8)  # candidates for the maximum number of rows, the best first
NOT_FOUND = 0
TESTED = 2  # what `probe` tests; results of other numbers do not count
CHILD_SECONDS = 300.0  # the timeout of `probe_in_child`
BLOCK_ROWS = 1024  # the number of different rows in a random matrix
_log = logging.getLogger(__name__)
_known: dict[str, int] = {}


def max_rows(
    config: PreTrainedConfig, precision: Precision, properties: Mapping[str, Any], cache: Path = CACHE
) -> int:
    """The maximum number of rows of a pass for this model on this processor; 0 if no number gives batch invariance.

    The result is cached in a file. On processors other than x86-64 the probe runs in its own process, because OpenVINO
    may crash there. A crash counts as 0.
    """
    key = _key(config, precision, properties)
    if key not in _known:
        _known.update(_read(cache))
    if key not in _known:
        found = probe if platform.machine().lower() in ("x86_64", "amd64") else probe_in_child
        _known[key] = found(config, precision, properties)
        _log.info("%s in %s: %d rows per pass", config.model_type, precision, _known[key])
        _write(cache, key, _known[key])
    return _known[key]


def probe(config: PreTrainedConfig, precision: Precision, properties: Mapping[str, Any]) -> int:
    """See `max_rows`. Tests one layer and the head, in the shapes of the model, with random weights."""
    small = first_layer(config)
    model = graph.write(small, RandomWeights(small), precision)
    decoder = Decoder(model, properties, max_rows=MAX_ROWS)
    decoder.make_pool(MAX_ROWS + 16)
    return next((limit for limit in LIMITS if _agree(decoder, limit, config.vocab_size)), NOT_FOUND)


def probe_in_child(config: PreTrainedConfig, precision: Precision, properties: Mapping[str, Any]) -> int:
    """Runs `probe` in its own process; 0 if that fails."""
    request = json.dumps([config.to_dict(), precision, {name: str(value) for name, value in properties.items()}])
    command = [sys.executable, "-m", __name__]
    with suppress(subprocess.TimeoutExpired, OSError, ValueError, IndexError):
        child = subprocess.run(
            command, input=request, capture_output=True, text=True, timeout=CHILD_SECONDS, check=False, cwd=_ROOT
        )
        if child.returncode == 0:
            return int(child.stdout.strip().splitlines()[-1])
        _log.warning("The probe of OpenVINO ended with %d: %s", child.returncode, child.stderr[-500:])
    return NOT_FOUND


_ROOT = Path(__file__).parents[3]


def first_layer(config: PreTrainedConfig) -> PreTrainedConfig:
    """The config of the model that has only the first layer."""
    values = config.to_dict() | {"num_hidden_layers": 1}
    for name in ("layer_types", "no_rope_layers"):
        if values.get(name):
            values[name] = values[name][:1]
    return read_config(values)


class RandomWeights(Weights):
    """Random weights for a config, without files. They are so small that nothing overflows."""

    def __init__(self, config: PreTrainedConfig) -> None:
        self._shapes = {n: tuple(p.shape) for n, p in graph.skeleton(config).named_parameters()}
        self._random = np.random.default_rng(0)

    def stored_name(self, name: str) -> str | None:
        """The name itself."""
        return name if name in self._shapes else None

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of the parameter in the model."""
        return self._shapes[name]

    def vector(self, name: str) -> np.ndarray:
        """Random numbers near one."""
        return 1 + 0.1 * self._random.standard_normal(self._shapes[name], np.float32)

    def matrix(self, names: Sequence[str], precision: Precision) -> openvino.Node:
        """One random block of rows, repeated. The values do not matter, and drawing them all would be slow."""
        rows, width = sum(self._shapes[name][0] for name in names), self._shapes[names[0]][1]
        block = self._random.integers(-QMAX, QMAX + 1, (min(rows, BLOCK_ROWS), width), np.int8)
        matrix = np.resize(block, (rows, width))
        scale = 1 / (QMAX * width**0.5)
        if precision == "float32":
            return constant_floats(matrix.astype(np.float32) * np.float32(scale))
        return constant_int8(matrix, np.full((rows, 1), scale, np.float16))


def _agree(decoder: Decoder, limit: int, vocabulary: int) -> bool:
    """Whether the logits of a row are the same, in both modes, in passes of any size from two to `limit` rows."""
    ids = [int(id) for id in np.random.default_rng(1).integers(0, vocabulary, limit + 2)]
    sizes = sorted({2, 3, 8, limit // 2, limit - 1, limit})

    def read(table: BlockTable, count: int) -> np.ndarray:
        return decoder.run([PassInput(table, ids[table.length : table.length + count], True, count)]).logits

    # 1. A prompt in chunks of any size.
    table = BlockTable(decoder.pool)
    expected = np.concatenate([read(table, limit), read(table, 2)])
    for size in sizes:
        other_table = BlockTable(decoder.pool)
        logits = np.concatenate([read(other_table, size), read(other_table, 2)])
        if not np.array_equal(logits, expected[: size + 2]):
            return False

    # 2. A token of an answer: alone, beside other tokens in decode mode, and beside a prefill chunk.
    first = _decode(decoder, table, [PassInput(table, ids[:1], False)])[0]
    for size in sizes:
        decoding = [PassInput(BlockTable(decoder.pool), [id], False) for id in ids[1:size]]
        prefill = PassInput(BlockTable(decoder.pool), ids[: size - 1], True)
        for others in (decoding, [prefill] if size > 2 else []):
            if not np.array_equal(_decode(decoder, table, [PassInput(table, ids[:1], False), *others])[0], first):
                return False

    # 3. Many tokens in one pass (sequences of one row that share their blocks), and the same tokens in several.
    rows = ids[:limit]
    whole = _decode(decoder, table, [PassInput(table, rows, False, limit)])
    for size in (1, *sizes):
        length, parts = table.length, [rows[begin : begin + size] for begin in range(0, limit, size)]
        pieces = [decoder.run([PassInput(table, part, False, len(part))]).logits for part in parts]
        table.crop(length)
        if not np.array_equal(np.concatenate(pieces), whole):
            return False
    return bool(np.array_equal(whole[0], first))


def _decode(decoder: Decoder, table: BlockTable, batch: Sequence[PassInput]) -> np.ndarray:
    """The logits of a pass. Afterwards `table` is cropped to its length before the pass."""
    length = table.length
    logits = decoder.run(batch).logits
    table.crop(length)
    return logits


def _key(config: PreTrainedConfig, precision: Precision, properties: Mapping[str, Any]) -> str:
    """The cache key: a hash of all that the result depends on (processor, version, shapes, threads and hints)."""
    core = openvino.Core()
    processor = [core.get_property("CPU", name) for name in ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")]
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor += [line for line in lines if line.startswith(("flags", "Features"))][:1]
    shapes = {n: list(p.shape) for n, p in graph.skeleton(first_layer(config)).named_parameters()}
    parts = [
        TESTED,
        openvino.__version__,
        platform.machine(),
        processor,
        shapes,
        precision,
        sorted(properties.items()),
    ]
    return hashlib.sha256(json.dumps(parts, default=str, sort_keys=True).encode()).hexdigest()[:24]


def _read(cache: Path) -> dict[str, int]:
    with suppress(OSError, ValueError, TypeError, AttributeError):  # the last two: JSON of another shape
        values = json.loads(cache.read_text("utf-8"))
        return {str(key): int(value) for key, value in values.items()}
    return {}


def _write(cache: Path, key: str, rows: int) -> None:
    """Adds the result to the file. If the file cannot be written, the result is cached in this process only."""
    with suppress(OSError):
        cache.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=cache.parent, delete=False, encoding="utf-8") as file:
            json.dump(_read(cache) | {key: rows}, file)
        Path(file.name).replace(cache)


if __name__ == "__main__":
    config_values, precision_name, hints = json.loads(sys.stdin.read())
    print(probe(read_config(config_values), precision_name, hints))
