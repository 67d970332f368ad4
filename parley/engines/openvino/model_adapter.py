"""Wraps a graph as a model of transformers, so that `generate` and Parley's own decode loops can run it."""

import copy
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from transformers import GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.generation.candidate_generator import CandidateGenerator
from transformers.modeling_outputs import CausalLMOutputWithPast

from parley.engines.openvino.decoder import Decoder, PassInput, PassOutput
from parley.engines.openvino.paged_kv import BlockTable, PagedKVCache
from parley.engines.openvino.scheduler import Scheduler
from parley.engines.openvino.turns import TURNS
from parley.generation import streaming
from parley.models.families import logits_scale
from parley.models.load_plan import openvino_bytes
from parley.strategies.decoders.causal_lm import AsksForLogits, T


@dataclass
class DecoderOutput(CausalLMOutputWithPast):
    """The output class of transformers with `early_logits`, shape (early layers, sequences, kept, vocabulary).

    `early_logits` are the head's output for the hidden states of early layers, without the family's logits scale.
    """

    early_logits: torch.Tensor | None = None


class ModelAdapter(PreTrainedModel, GenerationMixin):
    """A `Decoder` with the interface of a transformers model, for sequences without padding.

    It raises `Interrupted` between two passes if the turn was stopped. The cache stays valid then.
    """

    config_class = PreTrainedConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    _supports_sdpa = True  # keeps transformers from looking for another attention; the graph has its own

    def __init__(self, config: PreTrainedConfig, decoder: Decoder) -> None:
        super().__init__(copy.deepcopy(config))
        self.decoder = decoder
        self.scheduler = Scheduler(decoder)
        self._logits_scale = logits_scale(config)
        self.exit: Decoder | None = None  # the graph of the first layers, for early-exit drafts

    @property
    def device(self) -> torch.device:
        """The device of ids and logits."""
        return torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        """The type of the logits."""
        return torch.float32

    def get_memory_footprint(self, return_buffers: bool = True) -> int:
        """Bytes of the graph, and of the exit graph if there is one, with the overhead of OpenVINO for each."""
        graphs = [graph for graph in (self.decoder, self.exit) if graph]
        return int(sum(openvino_bytes(graph.weight_bytes, graph.num_layers) for graph in graphs))

    @property
    def early_layers(self) -> tuple[int, ...]:
        """The layers that `forward` can return `early_logits` for."""
        return self.decoder.early

    @classmethod
    def can_generate(cls) -> bool:
        """True: `generate` can run this model."""
        return True

    @property
    def free_drafts(self) -> int:
        """How many draft tokens a pass checks at no cost: one, because a pass has two rows anyway.

        None while other turns run, because they want the rows.
        """
        return 1 if TURNS.num_running <= 1 else 0

    def prefill_beside(self, cache: PagedKVCache, input_ids: torch.Tensor) -> torch.Tensor:
        """Reads another prompt, shape (1, tokens), as a new sequence of the cache. Logits: (1, 1, vocabulary)."""
        other_cache = PagedKVCache([cache.beside(input_ids[0].tolist())], input_ids.shape[1])
        logits = self.forward(input_ids[:, other_cache.get_seq_length() :], other_cache, 1).logits
        cache.tables += other_cache.tables
        return logits

    def new_cache(self, prompt_length: int | None = None) -> PagedKVCache:
        """An empty cache for one sequence."""
        return PagedKVCache([BlockTable(self.decoder.pool)], prompt_length)

    def forward(
        self,
        input_ids: torch.Tensor,
        past_key_values: PagedKVCache | None = None,
        logits_to_keep: int = 0,
        *,
        output_hidden_states: bool = False,
        early_logits: bool = False,
        attention_mask: torch.Tensor | None = None,
        **_: Any,
    ) -> DecoderOutput:
        """Reads `input_ids`, shape (sequences, tokens), after the tokens in the cache.

        Returns logits of shape (sequences, `logits_to_keep` or all tokens, vocabulary). `hidden_states` has one item,
        the state after the last norm, shape (sequences, tokens, width). If the cache has one sequence and `input_ids`
        several, all of them must be the same prompt: it is read once, and then the cache is forked for each sequence.
        """
        cache = past_key_values if past_key_values is not None else self.new_cache()
        logits, early, hidden = self._forward(cache, input_ids, logits_to_keep, early_logits)
        sequences = len(input_ids)
        return DecoderOutput(
            logits=logits.expand(sequences, -1, -1),
            past_key_values=cache,
            hidden_states=(hidden.expand(sequences, -1, -1),) if output_hidden_states else None,
            early_logits=early.expand(-1, sequences, -1, -1) / self._logits_scale if early_logits else None,
        )

    def drive(self, cache: PagedKVCache, loop: AsksForLogits[T]) -> T:
        """Runs a decode loop to its end, and returns what it returns; see `AsksForLogits`.

        Its steps may run in the thread of another turn. Faster than calling the model.
        """
        return self.scheduler.drive(self._passes(cache, loop))

    @staticmethod
    def _passes(cache: PagedKVCache, loop: AsksForLogits[T]) -> Generator[Sequence[PassInput], PassOutput, T]:
        asked = partial(next, loop)
        while True:
            try:
                _, ids = asked()
            except StopIteration as end:
                return end.value
            output = yield [PassInput(table, ids, False, len(ids)) for table in cache.tables]
            asked = partial(loop.send, torch.from_numpy(output.logits).view(len(cache.tables), len(ids), -1))

    def _forward(self, cache: PagedKVCache, input_ids: torch.Tensor, logits_to_keep: int, early: bool) -> "Outputs":
        """Logits, early logits and hidden states; only those of one sequence if all sequences are the same."""
        num_sequences, count = input_ids.shape
        if cache.prompt_length is None:
            cache.prompt_length = cache.get_seq_length() + count
        keep = logits_to_keep or count
        if len(cache.tables) < num_sequences:
            outputs = [self._read(cache, input_ids[0].tolist(), keep, early)]
            cache.batch_repeat_interleave(num_sequences)
        elif count == 1:
            outputs = self._step(cache, input_ids[:, 0].tolist(), early)
        else:
            outputs = [self._read(cache, input_ids[0].tolist(), keep, early)]
        if len(outputs) == 1:
            logits, early_logits, hidden = outputs[0]
            return logits.unsqueeze(-3), early_logits.unsqueeze(-3), hidden.unsqueeze(-3)
        return _join(torch.stack, outputs, -3)

    def _step(self, cache: PagedKVCache, ids: Sequence[int], early: bool) -> "list[Outputs]":
        """Reads one token for each sequence."""
        streaming.raise_if_stopped()
        batch = [PassInput(table, [id], False, 1, early) for table, id in zip(cache.tables, ids, strict=True)]
        output = self.scheduler.run(batch)
        return [_outputs(output, slice(i, i + 1)) for i in range(len(batch))]

    def _read(self, cache: PagedKVCache, ids: Sequence[int], keep: int, early: bool) -> "Outputs":
        """Reads several tokens of one sequence: tokens of the prompt in chunks, later ones in decode mode."""
        streaming.raise_if_stopped()
        [table] = cache.tables
        prompt = max(0, min(len(ids), (cache.prompt_length or 0) - table.length))
        parts = [(ids[:prompt], prompt > 1), (ids[prompt:], False)]
        batch, left = [], len(ids)
        for part, is_chunk in parts:
            left -= len(part)
            if part:
                batch.append(PassInput(table, part, is_chunk, max(0, min(len(part), keep - left)), early))
        return _outputs(self.scheduler.run(batch), slice(0, len(ids)))

    def _prefill(
        self,
        input_ids: torch.Tensor,
        generation_config: Any,
        model_kwargs: dict[str, Any],
        is_first_iteration: bool = True,
    ) -> DecoderOutput:
        cache = model_kwargs.get("past_key_values")
        cached = cache.get_seq_length() if cache is not None else 0
        kwargs = {name: model_kwargs[name] for name in _FORWARD_KWARGS if name in model_kwargs}
        output = self(input_ids[:, cached:], cache, 1, **kwargs)
        if cache is not None and cache.states is not None and output.hidden_states:
            output.hidden_states = (torch.cat([cache.states[None], output.hidden_states[0]], 1),)
        return output

    def prepare_inputs_for_generation(
        self, input_ids: torch.Tensor, next_sequence_length: int | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """The arguments of `forward` for the tokens that the cache does not hold yet."""
        cache = kwargs["past_key_values"]
        begin = cache.get_seq_length() if next_sequence_length is None else input_ids.shape[1] - next_sequence_length
        names = ("past_key_values", "logits_to_keep", *_FORWARD_KWARGS)
        return {"input_ids": input_ids[:, begin:]} | {name: kwargs[name] for name in names if name in kwargs}

    def _prepare_cache_for_generation(
        self, generation_config: Any, model_kwargs: dict[str, Any], *_: Any, **__: Any
    ) -> None:
        if model_kwargs.get("past_key_values") is None:
            new = generation_config.max_new_tokens
            model_kwargs["past_key_values"] = self.new_cache(new and generation_config.max_length - new)

    def _get_candidate_generator(self, generation_config: Any, **kwargs: Any) -> CandidateGenerator:
        if generation_config.assistant_early_exit is None:
            return super()._get_candidate_generator(generation_config=generation_config, **kwargs)
        cache = kwargs["model_kwargs"]["past_key_values"]
        return EarlyExitDrafts(self, cache, generation_config, kwargs["logits_processor"])


_FORWARD_KWARGS = ("output_hidden_states", "early_logits")
Outputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # logits, early logits and hidden states of one sequence


def _outputs(output: PassOutput, rows: slice) -> Outputs:
    logits, early, hidden = map(torch.from_numpy, (output.logits, output.early, output.hidden))
    return logits[rows], early[:, rows], hidden[rows]


def _join(join: Callable[[list[torch.Tensor], int], torch.Tensor], outputs: "list[Outputs]", axis: int) -> "Outputs":
    return (
        join([logits for logits, _, _ in outputs], axis),
        join([early for _, early, _ in outputs], axis),
        join([hidden for _, _, hidden in outputs], axis),
    )


def chunk_ends(count: int, max_rows: int) -> list[int]:
    """Where the chunks of a prompt of `count` tokens end. Each has 2 to `max_rows` tokens; 1 only if `count` is 1."""
    ends, begin = [], 0
    while begin < count:
        rows = min(max_rows, count - begin)
        begin += rows - 1 if count - begin - rows == 1 else rows
        ends.append(begin)
    return ends


class EarlyExitDrafts(CandidateGenerator):
    """Draft tokens from the model's first layers, with the model's own cache (Elhoushi et al., 2024).

    https://arxiv.org/abs/2404.16710. The keys and values of draft tokens are dropped, and the model writes its own.
    """

    requires_model_outputs = False

    def __init__(
        self, model: ModelAdapter, cache: PagedKVCache, config: Any, processors: Callable[..., torch.Tensor]
    ) -> None:
        assert model.exit is not None  # the engine has prepared it
        self._scheduler, self._exit = model.scheduler, model.exit
        self._cache, self._processors = cache, processors
        self._count, self._max_length = config.num_assistant_tokens, config.max_length
        self.num_assistant_tokens = self._count

    def get_candidates(self, input_ids: torch.Tensor, **_: Any) -> tuple[torch.Tensor, None]:
        """Appends draft tokens to `input_ids`, shape (1, tokens); none before the prompt is read."""
        [table] = self._cache.tables
        length = table.length
        if length != input_ids.shape[1] - 1:
            return input_ids, None
        for _step in range(min(self._count, self._max_length - input_ids.shape[1] - 1)):
            streaming.raise_if_stopped()
            output = self._scheduler.run([PassInput(table, [int(input_ids[0, -1])], is_chunk=False)], self._exit)
            scores = self._processors(input_ids, torch.from_numpy(output.logits))
            input_ids = torch.cat([input_ids, scores.argmax(-1, keepdim=True)], -1)
        table.crop(length)
        return input_ids, None

    def update_candidate_strategy(self, input_ids: torch.Tensor, scores: torch.Tensor, num_matches: int) -> None:
        """No-op: the number of draft tokens is constant."""
