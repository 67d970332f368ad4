"""Kinds of positions: how a model knows the place of a token, which engine serves that, and how long keys stay right.

With most kinds a key depends on its token and the place of that alone. With LongRoPE and dynamic NTK it depends on the
length of the text too. All is read off the config of a model, and tests/engines/test_positions.py proves each row.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Length = int  # tokens of a text, prompt and answer together


def _never(rope: Mapping[str, Any], config: Any, length: Length) -> int:
    return 0


def _once(rope: Mapping[str, Any], config: Any, length: Length) -> int:
    return int(length > rope["original_max_position_embeddings"])


def _with_each_token(rope: Mapping[str, Any], config: Any, length: Length) -> int:
    return max(length, config.max_position_embeddings)


@dataclass(frozen=True)
class Rope:
    """One way to choose the frequencies of RoPE, a `rope_type` of transformers."""

    grows: str  # what becomes of a text that grows longer than its first window
    openvino: bool = True  # whether the OpenVINO engine serves it; transformers serves every row
    # Takes the RoPE parameters, the config and a length. Of equal numbers the frequencies are equal.
    frequencies: Callable[[Mapping[str, Any], Any, Length], int] = _never


ROPES: dict[str, Rope] = {
    "default": Rope("nothing changes"),
    "linear": Rope("nothing changes: all frequencies are divided by one factor"),
    "llama3": Rope("nothing changes: low frequencies are divided by one factor"),
    "yarn": Rope("nothing changes: frequencies and attention are scaled from the first token on"),
    "proportional": Rope("nothing changes: a part of each head is not rotated", openvino=False),
    "longrope": Rope(
        "past the first window all tokens get other frequencies, so the text is read again once",
        openvino=False,
        frequencies=_once,
    ),
    "dynamic": Rope(
        "the context ends with the first window, past which each token would change all frequencies",
        openvino=False,
        frequencies=_with_each_token,
    ),
}


@dataclass(frozen=True)
class Layer:
    """What a layer of a certain kind, a value in `layer_types` of a config, sees of a text."""

    sees: str
    openvino: bool = False


LAYERS: dict[str, Layer] = {
    "full_attention": Layer("all tokens", openvino=True),
    "sliding_attention": Layer("the last tokens, as many as its window has", openvino=True),
    "chunked_attention": Layer("the tokens of the same chunk"),
    "indexed_attention": Layer("the tokens that an index picks, once there are more of them"),
    "minimax_m3_sparse": Layer("the blocks that an index picks"),
    "compressed_sparse_attention": Layer("a window, and the compressed blocks that an index picks"),
    "heavily_compressed_attention": Layer("a window, and all compressed blocks"),
    "linear_attention": Layer("a state"),
    "conv": Layer("a state"),
    "hybrid": Layer("a state, and all tokens"),
    "hybrid_sliding": Layer("a state, and a window"),
    "reference_sliding_attention": Layer("a window, and the first tokens"),
    "dummy": Layer("what an earlier layer sees"),
}
# The architectures whose code in transformers reads the text again where it passes `original_max_position_embeddings`,
# whatever their RoPE. Others with LongRoPE go on with the keys that they have.
REREAD = frozenset(("phi3", "phi4_multimodal", "phimoe"))


def ropes(config: Any) -> list[Mapping[str, Any]]:
    """The RoPE parameters of a config: one for all layers, or one for each type of layer; none without RoPE."""
    given = getattr(config, "rope_parameters", None) or {}
    return [each for each in given.values() if isinstance(each, Mapping)] or ([given] if given else [])


class Rotation:
    """What the keys of a model depend on beside the token and its place. `config` is that of its decoder."""

    def __init__(self, config: Any) -> None:
        self._config = config
        kinds = [(rope, ROPES.get(rope.get("rope_type", "default"))) for rope in ropes(config)]
        self._changing = [(rope, row.frequencies) for rope, row in kinds if row and row.frequencies is not _never]
        first = getattr(config, "original_max_position_embeddings", None)
        self._rereads_after: Length | None = first if config.model_type in REREAD else None

    def at(self, length: Length) -> tuple[int, ...]:
        """Stands for the frequencies in a pass that ends a text of this length. Equal ones give equal keys."""
        frequencies = tuple(choose(rope, self._config, length) for rope, choose in self._changing)
        after = self._rereads_after
        return frequencies if after is None else (*frequencies, int(length > after))

    def rereads(self, cached: Length, length: Length) -> bool:
        """Whether the model reads a text of this length from its beginning, although it has this many keys."""
        return self._rereads_after is not None and cached <= self._rereads_after < length

    def drafts(self, length: Length, count: int) -> int:
        """How many of `count` draft tokens a pass can check after a text without changing the keys before them."""
        if not self.at(0):
            return count
        return next((n for n in range(count, 0, -1) if self.at(length + n) == self.at(length)), 0)

    def last_like(self, prompt: Length, length: Length) -> Length:
        """The length up to which a text that grew from a prompt to `length`, token by token, kept its first keys."""
        if not self.at(0):
            return length
        return next((n for n in range(length, prompt, -1) if self.at(n) == self.at(prompt)), min(prompt, length))
