"""The pages of a beam search: beams share those that they have in common, and write to none that another reads."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import Cache
from transformers.modeling_outputs import CausalLMOutputWithPast

from parley.engines.pages import PAGE, PagedModel, Pages, Reader


class PagedBeams(Cache):
    """The keys and values of several sequences of one length, which begin with those that `pages` holds.

    These stay as they are; the beams' own lie behind them, and are scrap once the search is over.
    """

    def __init__(self, model: PagedModel, pages: Pages, count: int) -> None:
        super().__init__(layers=[])
        self._model, self._pages, self._length = model, pages, len(pages.ids)
        self._prompt = range(-(-self._length // PAGE))  # its pages, the last of which may have room left
        self._tables = [list(self._prompt)]  # the pages of each beam, in the order of its tokens
        self.reorder_cache(torch.zeros(count, dtype=torch.long))

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """How many tokens each beam has."""
        return self._length

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Each beam goes on from the one that `beam_idx`, shape (beams,), names."""
        self._tables = [list(self._tables[source]) for source in beam_idx.tolist()]
        if self._length % PAGE == 0:
            return
        taken = {self._prompt[-1]}
        for table in self._tables:
            if table[-1] in taken:
                table[-1] = self._copied(table[-1])
            taken.add(table[-1])

    def step(self, ids: Sequence[int]) -> np.ndarray:
        """What follows when each beam takes its one of `ids`; shape (beams, vocabulary)."""
        if self._length % PAGE == 0:
            for table, page in zip(self._tables, self._unused(len(ids)), strict=True):
                table.append(page)
        column = np.array(ids, np.int64)[:, None]
        made = self._model.infer(self._pages, column, self._length, self._tables, range(len(ids)))
        self._length += 1
        return made

    def _copied(self, page: int) -> int:
        [copy] = self._unused(1)
        for tensor in self._pages.tensors.values():
            tensor.data[copy] = tensor.data[page]
        return copy

    def _unused(self, count: int) -> list[int]:
        used = {*self._prompt, *itertools.chain(*self._tables)}
        self._pages.make_room((len(used) + count) * PAGE)
        return list(itertools.islice((page for page in itertools.count() if page not in used), count))


class BeamReader(Reader):
    """A `Reader` for beam searches: it reads the prompt once, then a token for each beam."""

    def _prefill(self, input_ids: torch.Tensor, *_: Any, **__: Any) -> CausalLMOutputWithPast:
        logits = self._read(input_ids[0, len(self._pages.ids) :].tolist(), 1)
        self._beams = PagedBeams(self._computes, self._pages, len(input_ids))
        return CausalLMOutputWithPast(logits=logits.expand(len(input_ids), -1, -1), past_key_values=self._beams)

    def prepare_inputs_for_generation(self, input_ids: torch.Tensor, **_: Any) -> dict[str, Any]:
        """The last token of each beam, of sequences of shape (beams, tokens)."""
        return {"ids": input_ids[:, -1].tolist()}

    def __call__(self, ids: Sequence[int], **_: Any) -> CausalLMOutputWithPast:
        """The logits after each beam's token, shape (beams, 1, vocabulary)."""
        return CausalLMOutputWithPast(
            logits=torch.from_numpy(self._beams.step(ids))[:, None], past_key_values=self._beams
        )
