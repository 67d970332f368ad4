"""Reads given tokens instead of choosing them, and keeps what the strategy would have seen at each of them.

So the choice of every token can be shown later: the logits, what each processor made of them, and the draw. See
`decode_loop` for the loop that chose the tokens.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

from parley.strategies.decoders.causal_lm import CausalLM, PagedCausalLM, next_inputs
from parley.strategies.decoders.dola import Contrast
from parley.strategies.processors.guidance import Guidance, split_guidance

ROWS = 32  # tokens that are read in one pass; their logits are held until they have been looked at


@dataclass(frozen=True)
class Step:
    """What a decode loop has at one token."""

    token: int
    logits: torch.Tensor  # those of the model, shape (vocabulary,)
    chain: Sequence[tuple[Any, torch.Tensor]]  # what changed the scores, and the scores after it, (vocabulary,)
    uniform: torch.Tensor | None  # the random numbers of the draw, float64, (vocabulary,); None: nothing was drawn

    @property
    def scores(self) -> torch.Tensor:
        """What the token was chosen by, shape (vocabulary,)."""
        return self.chain[-1][1] if self.chain else self.logits

    @property
    def winner(self) -> int:
        """The token that is drawn or, where nothing is drawn, that has the highest score."""
        if self.uniform is None:
            return int(self.scores.argmax())
        kept = (self.scores > -torch.inf).nonzero()[:, 0]
        noise = self.noise(kept)
        assert noise is not None
        return int(kept[(self.scores.softmax(-1)[kept] / noise).argmax()])

    def noise(self, ids: torch.Tensor) -> torch.Tensor | None:
        """The exponential noise of these tokens: the one with the largest quotient of probability and noise is drawn.

        See `sampling.Sampler`. None where nothing was drawn.
        """
        return None if self.uniform is None else -torch.log1p(-self.uniform[ids]).float()


def look_again(
    model: CausalLM,
    input_ids: torch.Tensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    logits: torch.Tensor,
    on_step: Callable[[Step], None],
    **inputs: Any,
) -> torch.Tensor:
    """For `generate(custom_generate=…)`: calls `on_step` with these logits after one prompt, and reads nothing."""
    on_step(Step(-1, logits, _processed(logits_processor, input_ids, logits[None], []), None))
    return input_ids


def _processed(
    processors: Iterable[Any], input_ids: torch.Tensor, scores: torch.Tensor, chain: list[tuple[Any, torch.Tensor]]
) -> Sequence[tuple[Any, torch.Tensor]]:
    """The chain with what each processor makes of the scores, shape (1, vocabulary)."""
    for each in processors:
        scores = each(input_ids, scores.clone())
        chain.append((each, scores[0]))
    return chain


@torch.no_grad()
def teacher_forcing(
    model: CausalLM,
    input_ids: torch.Tensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    given: Sequence[int],
    on_step: Callable[[Step], None],
    generator: torch.Generator | None = None,
    dola_layers: str = "",
    **inputs: Any,
) -> torch.Tensor:
    """For `generate(custom_generate=…)`: reads `given` after one prompt, shape (1, tokens), and calls `on_step`.

    Returns prompt and answer, shape (1, tokens). `generator` stands where it stood before the first token was drawn;
    without one nothing was drawn. With `dola_layers` early layers are compared, as `dola` does. An OpenVINO graph
    reads the tokens in decode mode, so that the logits are those by which they were chosen. A model of torch rounds
    several tokens in a pass otherwise than single ones.
    """
    guidance, processors = None, list(logits_processor)
    if isinstance(model, PagedCausalLM):
        guidance, processors = split_guidance(logits_processor, input_ids)
    contrast = Contrast(model, dola_layers) if dola_layers else None
    inputs = {name: value for name, value in inputs.items() if name != "synced_gpus"}
    inputs |= contrast.inputs if contrast else {}
    outputs = _outputs(model, input_ids, given, generation_config, inputs, guidance)
    uniform = None
    for token, (read, position) in zip(given, outputs, strict=True):
        logits = read.logits[:1, position].float()
        scores, chain = logits, list[tuple[Any, torch.Tensor]]()
        if guidance:
            scores = guidance(read.logits[:, position])
            chain.append((guidance, scores[0]))
        if contrast:
            scores = contrast(read, position)
            chain.append((contrast, scores[0]))
        _processed(processors, input_ids, scores, chain)
        if generator is not None:
            uniform = torch.empty(logits.shape[1], dtype=torch.float64, device=logits.device)
            uniform.uniform_(generator=generator)
        on_step(Step(token, logits[0], chain, uniform))
        input_ids = torch.cat([input_ids, input_ids.new_tensor([[token]])], -1)
    return input_ids


def _outputs(
    model: CausalLM,
    input_ids: torch.Tensor,
    given: Sequence[int],
    generation_config: GenerationConfig,
    inputs: Mapping[str, Any],
    guidance: Guidance | None,
) -> Iterator[tuple[Any, int]]:
    """For each given token the outputs of the pass before it, and its place in them, counted from the end."""
    outputs = model._prefill(input_ids, generation_config, dict(inputs))
    cache = outputs.past_key_values
    if guidance and isinstance(model, PagedCausalLM):
        outputs.logits = torch.cat([outputs.logits[:, -1:], model.prefill_beside(cache, guidance.negative_ids)])
    yield outputs, -1
    read = given[:-1]  # the logits after the last one are not wanted
    rows = 1 if guidance else ROWS  # two sequences are read token by token
    for begin in range(0, len(read), rows):
        piece = input_ids.new_tensor([read[begin : begin + rows]])
        count = piece.shape[1]
        input_ids = torch.cat([input_ids, piece], -1)
        ids = input_ids.expand(2 if guidance else 1, -1)
        with_these = {**inputs, **next_inputs(inputs, cache, ids)}
        with_these |= {"logits_to_keep": count} if "logits_to_keep" in with_these else {}
        outputs = model(**model.prepare_inputs_for_generation(ids, next_sequence_length=count, **with_these))
        for position in range(-count, 0):
            yield outputs, position
