"""An exported model as OpenVINO computes it, and the keys and values of each conversation, in pages of its own."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino.opset14 as ops
import torch
from openvino._offline_transformations import paged_attention_transformation
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from parley.prefix_cache import Loan, PrefixCache, common_prefix
from parley.streaming import Brake, Interrupted

PAGE = 32  # tokens; the library's own size on CPUs
PIECE = 256  # tokens that are read between two looks at the brake
THREADS = torch.get_num_threads()  # as it was at the start: while an answer is made there are fewer
SPARE = 8  # pages that are added beyond those needed, so that not every page is a copy of all
# One byte for a key's or a value's number, each token by itself: what was read does not depend on how it was cut.
PROPERTIES = {"KV_CACHE_PRECISION": "u8", "KEY_CACHE_QUANT_MODE": "BY_TOKEN", "INFERENCE_PRECISION_HINT": "f32"}


class PagedModel:
    """One exported model. Each sequence that it computes for brings its own pages.

    Raises a `RuntimeError` for a model with layers that remember in another way than attention does.
    """

    def __init__(self, folder: Path) -> None:
        core = openvino.Core()
        model = core.read_model(folder / "openvino_model.xml")
        paged_attention_transformation(model)
        _compute_wanted_logits_only(model)
        if any(node.get_type_name() == "ReadValue" for node in model.get_ops()):
            raise RuntimeError("some of its layers have a state that lies in no page")
        compiled = core.compile_model(model, "CPU", PROPERTIES | {"INFERENCE_NUM_THREADS": THREADS})
        self._request = compiled.create_infer_request()
        self._lent: dict[str, openvino.Tensor] = {}  # the pages that it was given last
        self.layout = {  # of one page in each cache
            port.any_name: (port.element_type, [size.get_length() for size in list(port.partial_shape)[1:]])
            for port in compiled.inputs
            if port.any_name.startswith(("key_cache.", "value_cache."))
        }

    def logits(self, pages: "Pages", ids: Sequence[int], wanted: int = 1) -> np.ndarray:
        """What follows each of the last `wanted` of `ids`, shape (wanted, vocabulary).

        The ids come after those that the pages hold, and are added to them. What is computed for a token does not
        depend on how many are given at once.
        """
        held = len(pages.ids)
        # For a single token the library has other programs, which round otherwise; its double lands beyond the end.
        fed = [*ids, *ids] if len(ids) == 1 else ids
        pages.make_room(held + len(fed))
        table = range(-(-(held + len(fed)) // PAGE))
        made = self.infer(pages, np.array([fed], np.int64), held, [table], range(len(ids) - wanted, len(ids)))
        pages.ids.extend(ids)
        return made

    def infer(
        self, pages: "Pages", ids: np.ndarray, held: int, tables: Sequence[Sequence[int]], wanted: Sequence[int]
    ) -> np.ndarray:
        """What follows the tokens at the places `wanted` of all that are given, shape (wanted, vocabulary).

        The ids, shape (sequences, tokens), come after `held` tokens of each sequence. Its row of `tables` tells in
        which of the pages those are and these are to be, in their order.
        """
        if self._lent is not pages.tensors:
            for name, tensor in pages.tensors.items():
                self._request.set_tensor(name, tensor)
            self._lent = pages.tensors
        rows, count = ids.shape
        given = {
            "input_ids": ids.reshape(-1),
            "position_ids": np.tile(np.arange(held, held + count, dtype=np.int64), rows),
            "past_lens": np.full(rows, held, np.int32),
            "subsequence_begins": np.arange(0, ids.size + 1, count, dtype=np.int32),
            "block_indices": np.concatenate(tables).astype(np.int32),
            "block_indices_begins": np.cumsum([0, *map(len, tables)], dtype=np.int32),
            "max_context_len": np.array(held + count, np.int32),
            "wanted": np.array(wanted, np.int64),
        }
        made = self._request.infer(given, share_inputs=True, share_outputs=True)
        return made[0].reshape(len(wanted), -1).copy()


def _compute_wanted_logits_only(model: openvino.Model) -> None:
    """Gives the head the input `wanted`, the places of the tokens whose logits are: it is a large matrix."""
    head = model.get_results()[0].input_value(0).get_node()
    while head.get_type_name() != "MatMul":
        head = head.input_value(0).get_node()
    wanted = ops.parameter([-1], np.int64, "wanted")
    wanted.output(0).set_names({"wanted"})
    head.input(0).replace_source_output(ops.gather(head.input_value(0), wanted, ops.constant(0)).output(0))
    model.add_parameters([wanted])
    model.validate_nodes_and_infer_types()


class Pages:
    """The keys and values of one sequence, with what loops ask of a cache of transformers."""

    def __init__(self, model: PagedModel) -> None:
        self.ids: list[int] = []  # whose keys and values they are
        self.tensors: dict[str, openvino.Tensor] = {}
        self.sequence: Sequence[int] = ()  # of the session's last turn, the prompt and the answer
        self._model, self._count = model, 0

    @property
    def bytes(self) -> int:
        """The memory that they take."""
        return sum(tensor.byte_size for tensor in self.tensors.values())

    def get_seq_length(self) -> int:
        """How many tokens they hold."""
        return len(self.ids)

    def activate_past_recording(self) -> None:
        """Nothing has to be done before tokens are forgotten."""

    def crop(self, count: int) -> None:
        """Forgets the last `-count` tokens."""
        del self.ids[len(self.ids) + count :]

    def make_room(self, tokens: int) -> None:
        """Adds pages for so many tokens in all, where they are wanting."""
        if self._count * PAGE < tokens:
            self._resize(tokens)

    def shrink(self) -> None:
        """Gives back the memory of many pages that hold nothing, such as a beam search leaves behind."""
        if self._count * PAGE > 2 * (len(self.ids) + SPARE * PAGE):
            self._resize(len(self.ids))

    def _resize(self, tokens: int) -> None:
        pages = -(-tokens // PAGE)
        self._count = pages + max(SPARE, pages // 4)
        resized = {
            name: openvino.Tensor(kind, openvino.Shape([self._count, *shape]))
            for name, (kind, shape) in self._model.layout.items()
        }
        for name, tensor in self.tensors.items():
            kept = min(len(tensor.data), self._count)
            resized[name].data[:kept] = tensor.data[:kept]
        self.tensors = resized


class PagedPrefixes(PrefixCache):
    """The pages that the sessions left behind. No two sessions, and no two turns, share a page."""

    def __init__(self, model: PagedModel, most: Callable[[], int]) -> None:
        super().__init__(model, most)

    @contextmanager
    def lend(
        self, session: str, prompt: Sequence[int], rows: int, longest: int, answer: Callable[[], Sequence[int]]
    ) -> Iterator[Loan]:
        """Pages for one turn; see `PrefixCache.lend`."""
        with self._lock:
            pages = self._sessions.pop(session, None) or Pages(self._model)
        pages.crop(common_prefix(pages.ids, prompt[:-1]) - len(pages.ids))
        try:
            yield Loan(len(pages.ids), {"pages": pages})
        except Interrupted:
            self._left(session, pages, prompt, answer())
            raise
        self._left(session, pages, prompt, answer())

    def _left(self, session: str, pages: Pages, prompt: Sequence[int], answer: Sequence[int]) -> None:
        pages.sequence = [*prompt, *answer]
        pages.shrink()
        self._put(session, pages)


class Reader:
    """In place of a model of transformers for the loops of `strategies`: it reads on where the pages end, in pieces.

    All but the forward pass is the model's own. Raises `Interrupted` when the brake is pulled between two pieces; what
    was read until then stays in the pages.
    """

    def __init__(self, computes: PagedModel, model: PreTrainedModel, pages: Pages, brake: Brake) -> None:
        self._computes, self._model, self._pages, self._brake = computes, model, pages, brake

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def prepare_inputs_for_generation(self, input_ids: torch.Tensor, **_: Any) -> dict[str, Any]:
        """The tokens that were not read yet, of a sequence of shape (1, tokens)."""
        return {"ids": input_ids[0, len(self._pages.ids) :].tolist(), "logits_to_keep": 0}

    def _prefill(self, input_ids: torch.Tensor, *_: Any) -> CausalLMOutputWithPast:
        return self(**self.prepare_inputs_for_generation(input_ids) | {"logits_to_keep": 1})

    def __call__(self, ids: Sequence[int], logits_to_keep: int) -> CausalLMOutputWithPast:
        """The logits after the last so many of `ids`, 0 for all; shape (1, so many, vocabulary)."""
        return CausalLMOutputWithPast(logits=self._read(ids, logits_to_keep or len(ids)), past_key_values=self._pages)

    def _read(self, ids: Sequence[int], kept: int) -> torch.Tensor:
        begins = [0, *range(PIECE, len(ids) - kept + 1, PIECE)]
        for begin, end in zip(begins, [*begins[1:], len(ids)], strict=True):
            if self._brake.reason in ("stopped", "time"):
                raise Interrupted
            logits = self._computes.logits(self._pages, ids[begin:end], kept if end == len(ids) else 1)
        return torch.from_numpy(logits)[None]
