"""Gives the turns of a model their forward passes: one padded pass for all that ask where its cache allows it.

Each turn runs its decode loop in its own thread and calls the model, whose `forward` is replaced by a `Scheduler`. So
every strategy is batched, and none knows of it. Calls that cannot be padded run one after the other.
"""

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from parley.engines.load_errors import NotFinite
from parley.engines.transformers import padded_batch
from parley.engines.transformers.abort_hooks import stopped_if
from parley.engines.transformers.padded_batch import ForwardCall, pads
from parley.engines.transformers.pass_line import PassLine, PassRequest, line_of
from parley.generation.prefix_cache import STATEFUL
from parley.generation.streaming import Interrupted, raise_if_stopped, stop_check
from parley.positions import Rotation

MAX_ROWS = {"cpu": 64}  # tokens of a pass that several turns share, padding included
GPU_ROWS = 512  # of a GPU
MAX_PADDING = 2  # the tokens and keys of a pass, padding included, divided by those without padding, at most
MAX_DECODED = 21  # new tokens that a decode loop asks for, drafts included; more are a chunk of a prompt
SPARE_KEYS = 4096  # in all sequences together, that may be padding whatever the others are


@dataclass(eq=False)
class _Request(PassRequest):
    arguments: Mapping[str, Any] = field(default_factory=dict)  # of the call
    call: ForwardCall | None = None  # where it may share a pass


class Scheduler:
    """Takes the place of a model's `forward`."""

    def __init__(self, model: PreTrainedModel, group: object = None) -> None:
        self._group = group or self
        self._model_device = lambda: model.device
        self._forward: Callable[..., Any] = model.forward
        self.__signature__ = inspect.signature(self._forward)  # `generate` looks at it
        self._takes = tuple(self.__signature__.parameters)
        self._rotation = Rotation(model.config.get_text_config(decoder=True))
        self._pads = pads(model)
        self.num_shared = 0  # passes for several calls

    @property
    def line(self) -> PassLine:
        """The line of the device of the model."""
        return line_of(self._model_device().type)

    @property
    def max_rows(self) -> int:
        """The maximum number of tokens in a pass while several turns run, padding included."""
        return MAX_ROWS.get(self._model_device().type, GPU_ROWS)

    @property
    def in_company(self) -> bool:
        """Whether another turn than that of this thread runs on the device."""
        return self.line.in_company

    def turn(self) -> AbstractContextManager[None]:
        """During this `with` block the thread is that of a turn."""
        return self.line.turn()

    def __call__(self, *positional: Any, **named: Any) -> Any:
        """As the model's `forward`. Raises `NotFinite` where a logit is NaN: it would be chosen again and again."""
        output = self._output(dict(zip(self._takes, positional, strict=False)) | named)
        if output.logits.amax().isnan():  # the largest of numbers is NaN if one of them is
            raise NotFinite
        return output

    def _output(self, arguments: dict[str, Any]) -> Any:
        if not self.in_company:
            return self._ask(arguments, None)
        given = {name: value for name, value in arguments.items() if value is not None}
        if not padded_batch.understood(given):
            return self._ask(arguments, None)
        chunks = self._chunks(given)
        if len(chunks) == 1:
            return self._ask(arguments, self._batchable(given), given["input_ids"].shape[1] > MAX_DECODED)
        return joined(self._read(given, begin, end) for begin, end in chunks)

    def _batchable(self, given: Mapping[str, Any]) -> ForwardCall | None:
        # What is computed in one mode of torch cannot be changed in the other.
        return padded_batch.batchable(given) if self._pads and torch.is_inference_mode_enabled() else None

    def _chunks(self, given: Mapping[str, Any]) -> list[tuple[int, int]]:
        """Where the chunks of the new tokens begin and end; one for all of them where no other turn waits for it."""
        sequences, tokens = given["input_ids"].shape
        cache, size = given["past_key_values"], max(1, self.max_rows // sequences)
        if tokens <= size or any(type(layer) in STATEFUL for layer in cache.layers):
            return [(0, tokens)]
        cached = cache.get_seq_length()
        chunks = [(begin, min(begin + size, tokens)) for begin in range(0, tokens, size)]
        last = self._rotation.at(cached + tokens)
        return chunks if all(self._rotation.at(cached + end) == last for _, end in chunks) else [(0, tokens)]

    def _read(self, given: Mapping[str, Any], begin: int, end: int) -> CausalLMOutputWithPast:
        """The output for one chunk of the new tokens, with those of its logits that are asked for."""
        raise_if_stopped()
        tokens, cached = given["input_ids"].shape[1], given["past_key_values"].get_seq_length()
        kept = max(0, end - max(begin, tokens - (given.get("logits_to_keep", 0) or tokens)))
        chunk = {**given, "input_ids": given["input_ids"][:, begin:end]}
        if "attention_mask" in given:
            chunk["attention_mask"] = given["attention_mask"][:, : cached + end - begin]
        if "position_ids" in given:
            chunk["position_ids"] = given["position_ids"][:, begin:end]
        if "logits_to_keep" in self._takes:
            chunk["logits_to_keep"] = max(kept, 1)  # 0 would be all
        output = self._ask(chunk, self._batchable(chunk), is_chunk=True)
        logits = output.logits[:, output.logits.shape[1] - kept :]
        return CausalLMOutputWithPast(
            logits=logits, past_key_values=output.past_key_values, hidden_states=output.hidden_states
        )

    def _ask(self, arguments: Mapping[str, Any], call: ForwardCall | None, is_chunk: bool = False) -> Any:
        """The output of this call, when its turn in the line has come."""
        request = _Request(self._group, is_chunk, stop_check(), arguments=arguments, call=call)
        line, batch = self.line, [request]
        with line.place(request) as is_next:
            if is_next:
                line.gather(request, functools.partial(self._choose, batch))
                try:
                    if len(batch) == 1:  # in its own thread and mode, and an error is its own
                        return self._forward(**arguments)
                    line.shared.submit(self._run_together, batch).result()
                finally:
                    line.finish(batch)
        if request.error is not None:
            raise request.error
        return request.output

    def _choose(self, batch: list[_Request], waiting: Sequence[PassRequest]) -> Sequence[_Request]:
        """Adds those of the waiting requests to the batch that go with its first one without much padding."""
        first = batch[0].call
        calls = [first] if first else []
        for each in waiting:
            if not isinstance(each, _Request) or not first or not each.call:
                continue
            if each.call.hidden_states == first.hidden_states and self._fit([*calls, each.call]):
                batch.append(each)
                calls.append(each.call)
        return batch[1:]

    def _fit(self, calls: Sequence[ForwardCall]) -> bool:
        sequences = sum(call.num_sequences for call in calls)
        tokens, length = max(call.num_tokens for call in calls), max(call.length for call in calls)
        rows = sum(call.num_sequences * call.num_tokens for call in calls)
        keys = sum(call.num_sequences * call.length for call in calls)
        if sequences * length > MAX_PADDING * keys + SPARE_KEYS:
            return False
        return sequences * tokens <= min(self.max_rows, MAX_PADDING * rows)

    def _run_together(self, batch: Sequence[_Request]) -> None:
        """Runs the calls in one pass. If that fails each is run alone, so that only the one at fault fails."""
        calls = [each.call for each in batch if each.call]
        cached = [call.num_cached for call in calls]
        self.num_shared += 1
        try:
            with torch.inference_mode(), stopped_if(lambda: all(each.stopped() for each in batch)):
                outputs = padded_batch.run(self._forward, self._takes, calls)
        except Exception as error:
            for call, length in zip(calls, cached, strict=True):
                call.undo(length)
            for each in batch:
                if isinstance(error, Interrupted):
                    each.error = Interrupted()
                else:
                    self._run_alone(each)
        else:
            for each, output in zip(batch, outputs, strict=True):
                each.output = output

    def _run_alone(self, request: _Request) -> None:
        try:
            with torch.inference_mode(), stopped_if(request.stopped):
                request.output = self._forward(**request.arguments)
        except Exception as error:
            request.error = error


def joined(chunks: Iterable[CausalLMOutputWithPast]) -> CausalLMOutputWithPast:
    """The output for all chunks of a text from those of each."""
    logits, states = [], []
    for output in chunks:
        logits.append(output.logits)
        states.append(output.hidden_states)
    return CausalLMOutputWithPast(
        logits=torch.cat(logits, 1),
        past_key_values=output.past_key_values,
        hidden_states=None if states[0] is None else tuple(torch.cat(layer, 1) for layer in zip(*states, strict=True)),
    )


def schedule(model: PreTrainedModel) -> Scheduler:
    """The scheduler of a model, whose `forward` it becomes."""
    if not isinstance(model.forward, Scheduler):  # two engines may share one model
        model.forward = Scheduler(model)
    return model.forward
