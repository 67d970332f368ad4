"""A graph in place of a model of transformers: `generate`, its loops and ours run on it, and no weights of PyTorch."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.generation.candidate_generator import CandidateGenerator
from transformers.modeling_outputs import CausalLMOutputWithPast

from parley.engines.openvino.decoder import Decoder, Made, Rows
from parley.engines.openvino.paged_kv import BlockTable, PagedKVCache
from parley.generation import streaming
from parley.models.families import logits_scale
from parley.models.load_plan import openvino_bytes


@dataclass
class DecoderOutput(CausalLMOutputWithPast):
    """As of transformers; with `early_logits`, shape (early layers, sequences, kept, vocabulary), where asked for.

    These are what the head alone makes of a hidden state, without the family's own scale.
    """

    early_logits: torch.Tensor | None = None


class ModelAdapter(PreTrainedModel, GenerationMixin):
    """A decoder as transformers knows models, for sequences without padding. It computes nothing by itself.

    Between two passes it looks whether its turn was stopped, and raises `Interrupted`; what was read stays readable.
    """

    config_class = PreTrainedConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    _supports_sdpa = True  # it has no attention of its own: nothing is to be chosen

    def __init__(self, config: PreTrainedConfig, decoder: Decoder) -> None:
        super().__init__(copy.deepcopy(config))
        self.decoder = decoder
        self._logits_scale = logits_scale(config)
        self.exit: Decoder | None = None  # the graph cut after some layer, for self-speculative early exit

    @property
    def device(self) -> torch.device:
        """Where ids and logits are."""
        return torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        """Of the logits."""
        return torch.float32

    def get_memory_footprint(self, return_buffers: bool = True) -> int:
        """Bytes of the graph and, where there is one, of that for early exit, with what the library adds to each."""
        graphs = [graph for graph in (self.decoder, self.exit) if graph]
        return int(sum(openvino_bytes(graph.weight_bytes, graph.num_layers) for graph in graphs))

    @property
    def early_layers(self) -> tuple[int, ...]:
        """The layers whose `early_logits` can be asked for."""
        return self.decoder.early

    @classmethod
    def can_generate(cls) -> bool:
        """It can."""
        return True

    @property
    def free_drafts(self) -> int:
        """How many drafts a pass of one sequence checks in the time of none: it has a second row anyway."""
        return 1

    def prefill_beside(self, cache: PagedKVCache, input_ids: torch.Tensor) -> torch.Tensor:
        """Reads another prompt, shape (1, tokens), as one more sequence of the cache; logits (1, 1, vocabulary)."""
        beside = self.new_cache()
        logits = self.forward(input_ids, beside, 1).logits
        cache.tables += beside.tables
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
        """Reads `input_ids`, shape (sequences, tokens), after what the cache holds.

        Returns logits of shape (sequences, `logits_to_keep` or all, vocabulary). The one hidden state, shape
        (sequences, tokens, width), is that after the last norm. A cache of one sequence is made one of as many as
        there are rows in `input_ids` once the prompt, which they share, is read.
        """
        cache = past_key_values if past_key_values is not None else self.new_cache()
        logits, early, hidden = self._parts(cache, input_ids, logits_to_keep, early_logits)
        sequences = len(input_ids)
        return DecoderOutput(
            logits=logits.expand(sequences, -1, -1),
            past_key_values=cache,
            hidden_states=(hidden.expand(sequences, -1, -1),) if output_hidden_states else None,
            early_logits=early.expand(-1, sequences, -1, -1) / self._logits_scale if early_logits else None,
        )

    def next_logits(self, cache: PagedKVCache, input_ids: torch.Tensor) -> torch.Tensor:
        """The logits after each of `input_ids`, shape (sequences, tokens), which follow what the cache holds.

        Shape (sequences, tokens, vocabulary), to be changed freely: `forward` without what it costs to be a model.
        """
        return self._parts(cache, input_ids, 0, early=False)[0]

    def _parts(self, cache: PagedKVCache, input_ids: torch.Tensor, logits_to_keep: int, early: bool) -> "Parts":
        """Logits, early logits and hidden states, of one sequence for all where all of them are the same."""
        sequences, count = input_ids.shape
        if cache.prompt_length is None:
            cache.prompt_length = cache.get_seq_length() + count
        keep = logits_to_keep or count
        if len(cache.tables) < sequences:
            made = [self._read(cache, input_ids[0].tolist(), keep, early)]
            cache.batch_repeat_interleave(sequences)
        elif count == 1:
            made = self._step(cache, input_ids[:, 0].tolist(), early)
        else:
            made = [self._read(cache, input_ids[0].tolist(), keep, early)]
        if len(made) == 1:
            logits, early_logits, hidden = made[0]
            return logits.unsqueeze(-3), early_logits.unsqueeze(-3), hidden.unsqueeze(-3)
        return _joined(torch.stack, made, -3)

    def _step(self, cache: PagedKVCache, ids: Sequence[int], early: bool) -> "list[Parts]":
        """One token for each sequence."""
        parts = []
        for begin in range(0, len(ids), self.decoder.max_rows):
            streaming.raise_if_stopped()
            tables = cache.tables[begin : begin + self.decoder.max_rows]
            piece = [Rows(table, [id], piece=False) for table, id in zip(tables, ids[begin:], strict=False)]
            made = self.decoder.run(piece, early)
            parts += [_parts(made, slice(i, i + 1)) for i in range(len(piece))]
        return parts

    def _read(self, cache: PagedKVCache, ids: Sequence[int], keep: int, early: bool) -> "Parts":
        """Several tokens of one sequence: those of the prompt as pieces, later ones in decode's class."""
        [table] = cache.tables
        prompt = max(0, min(len(ids), (cache.prompt_length or 0) - table.length))
        parts, begin, most = [], 0, self.decoder.max_rows
        ends = [*cuts(prompt, most), *range(prompt + most, len(ids), most)]
        for end in ends if ends and ends[-1] == len(ids) else [*ends, len(ids)]:
            streaming.raise_if_stopped()
            wanted = max(0, end - max(begin, len(ids) - keep))
            piece = end <= prompt and end - begin > 1
            made = self.decoder.run([Rows(table, ids[begin:end], piece, wanted)], early)
            parts.append(_parts(made, slice(0, end - begin)))
            begin = end
        return _joined(torch.cat, parts, -2)

    def _prefill(
        self,
        input_ids: torch.Tensor,
        generation_config: Any,
        model_kwargs: dict[str, Any],
        is_first_iteration: bool = True,
    ) -> DecoderOutput:
        cache = model_kwargs.get("past_key_values")
        held = cache.get_seq_length() if cache is not None else 0
        given = {name: model_kwargs[name] for name in _PASSED_ON if name in model_kwargs}
        return self(input_ids[:, held:], cache, 1, **given)

    def prepare_inputs_for_generation(
        self, input_ids: torch.Tensor, next_sequence_length: int | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """The tokens of each sequence that were not read yet."""
        cache = kwargs["past_key_values"]
        begin = cache.get_seq_length() if next_sequence_length is None else input_ids.shape[1] - next_sequence_length
        passed = {name: kwargs[name] for name in ("past_key_values", "logits_to_keep", *_PASSED_ON) if name in kwargs}
        return {"input_ids": input_ids[:, begin:]} | passed

    def _prepare_cache_for_generation(
        self, generation_config: Any, model_kwargs: dict[str, Any], *_: Any, **__: Any
    ) -> None:
        if model_kwargs.get("past_key_values") is None:
            new = generation_config.max_new_tokens
            model_kwargs["past_key_values"] = self.new_cache(new and generation_config.max_length - new)

    def _get_candidate_generator(self, generation_config: Any, **given: Any) -> CandidateGenerator:
        if generation_config.assistant_early_exit is None:
            return super()._get_candidate_generator(generation_config=generation_config, **given)
        cache = given["model_kwargs"]["past_key_values"]
        return EarlyExitDrafts(self, cache, generation_config, given["logits_processor"])


_PASSED_ON = ("output_hidden_states", "early_logits")
Parts = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # logits, early logits and hidden states of one sequence


def _parts(made: Made, rows: slice) -> Parts:
    logits, early, hidden = map(torch.from_numpy, (made.logits, made.early, made.hidden))
    return logits[rows], early[:, rows], hidden[rows]


def _joined(join: Callable[[list[torch.Tensor], int], torch.Tensor], parts: "list[Parts]", axis: int) -> "Parts":
    return (
        join([logits for logits, _, _ in parts], axis),
        join([early for _, early, _ in parts], axis),
        join([hidden for _, _, hidden in parts], axis),
    )


def cuts(count: int, most: int) -> list[int]:
    """Where a prompt of so many rows is cut into pieces of at most `most`: none has one row, but a prompt of one."""
    ends, begin = [], 0
    while begin < count:
        rows = min(most, count - begin)
        begin += rows - 1 if count - begin - rows == 1 else rows
        ends.append(begin)
    return ends


class EarlyExitDrafts(CandidateGenerator):
    """Drafts by the model's first layers, over the model's own cache (Elhoushi et al., 2024).

    https://arxiv.org/abs/2404.16710. What the draft writes beyond the end of the sequence the model writes again.
    """

    requires_model_outputs = False

    def __init__(
        self, model: ModelAdapter, cache: PagedKVCache, config: Any, processors: Callable[..., torch.Tensor]
    ) -> None:
        assert model.exit is not None  # the engine prepares it before
        self._exit, self._cache, self._processors = model.exit, cache, processors
        self._count, self._max_length = config.num_assistant_tokens, config.max_length
        self.num_assistant_tokens = self._count

    def get_candidates(self, input_ids: torch.Tensor, **_: Any) -> tuple[torch.Tensor, None]:
        """Up to so many drafts after `input_ids`, shape (1, tokens); none before the prompt is read."""
        [table] = self._cache.tables
        held = table.length
        if held != input_ids.shape[1] - 1:
            return input_ids, None
        for _step in range(min(self._count, self._max_length - input_ids.shape[1] - 1)):
            streaming.raise_if_stopped()
            made = self._exit.run([Rows(table, [int(input_ids[0, -1])], piece=False)])
            scores = self._processors(input_ids, torch.from_numpy(made.logits))
            input_ids = torch.cat([input_ids, scores.argmax(-1, keepdim=True)], -1)
        table.crop(held)
        return input_ids, None

    def update_candidate_strategy(self, input_ids: torch.Tensor, scores: torch.Tensor, num_matches: int) -> None:
        """As many next time."""
