"""The decoding strategies: one row each; the dropdown, the API list, the help text and the README table read it."""

from dataclasses import dataclass

from parley.errors import BadSetting
from parley.strategies.requirements import DEMANDS, Abilities

EVERYWHERE = ("repetition_penalty", "no_repeat_ngram_size", "max_new_tokens", "stop", "thinking_budget")
TRUNCATION = ("top_k", "top_p", "min_p", "typical_p", "top_n_sigma", "top_h", "epsilon_cutoff", "eta_cutoff")
GUIDANCE = ("guidance_scale", "negative_prompt")  # for those that take one forward pass a token
BEAMS = ("num_beams", "length_penalty")
DOCS = "https://huggingface.co/docs/transformers/generation_strategies"


@dataclass(frozen=True)
class Strategy:
    """One way of choosing the next token."""

    name: str
    label: str
    summary: str  # one sentence: what it does
    when: str  # one sentence: when to use it
    source: str  # paper or page
    settings: tuple[str, ...] = ()  # names of the fields of `Settings` that it uses beyond `EVERYWHERE`
    samples: bool = False  # whether it draws random numbers
    runs: str = "tokens"  # the row of `engines.decoding.RUNS` that runs it
    reads_all: bool = False  # it looks at the model's view of the whole prompt, which no KV cache has
    demands: tuple[str, ...] = ()  # the rows of `DEMANDS` that a model has to meet

    @property
    def uses(self) -> tuple[str, ...]:
        """The names of all decoding settings that change what this strategy does."""
        return (*self.settings, *EVERYWHERE, *(("seed",) if self.samples else ()))

    @property
    def drafts(self) -> bool:
        """Whether another model guesses ahead."""
        return "draft" in self.demands

    def refusal(self, model: Abilities) -> str:
        """Why this model cannot run it, as a sentence that says what to do; empty where it can."""
        reasons = [DEMANDS[name].lacks(model) for name in self.demands]
        if model.strategies is not None and self.name not in model.strategies:
            reasons = [f"{model.label} answers from a server that only does {' and '.join(sorted(model.strategies))}"]
        reason = next(filter(None, reasons), "")
        return reason and f"{reason}, so {self.label} does not work with it. Choose another strategy."


STRATEGIES: dict[str, Strategy] = {
    row.name: row
    for row in (
        Strategy(
            name="greedy",
            label="Greedy",
            summary="Always takes the most likely next token.",
            when="For short, factual answers, and when the same question should give the same answer.",
            source=f"{DOCS}#greedy-search",
            settings=GUIDANCE,
        ),
        Strategy(
            name="sampling",
            label="Sampling",
            summary="Draws the next token at random, weighted by the model's probabilities.",
            when="For conversation and for stories, where variety reads better than certainty.",
            source="https://arxiv.org/abs/1904.09751",
            settings=("temperature", *TRUNCATION, *GUIDANCE),
            samples=True,
        ),
        Strategy(
            name="beams",
            label="Beam search",
            summary="Keeps several hypotheses and returns the one that is most likely as a whole.",
            when="For translations and summaries, where the best sentence may begin with an unlikely word.",
            source=f"{DOCS}#beam-search",
            settings=BEAMS,
            runs="live_beams",
        ),
        Strategy(
            name="beam_sampling",
            label="Beam-search sampling",
            summary="Keeps several hypotheses whose continuations are drawn at random.",
            when="For answers that are likely as a whole and yet differ from run to run.",
            source=f"{DOCS}#beam-search",
            settings=("temperature", *TRUNCATION, *BEAMS),
            samples=True,
            runs="live_beams",
        ),
        Strategy(
            name="diverse_beams",
            label="Diverse beam search",
            summary="Searches with groups of beams that are kept from saying the same.",
            when="To see alternatives that differ in more than their last words.",
            source="https://arxiv.org/abs/1610.02424",
            settings=("beam_groups", "beams_per_group", "diversity_penalty", "length_penalty"),
            runs="diverse_beams",
        ),
        Strategy(
            name="constrained_beams",
            label="Constrained beam search",
            summary="Searches for the most likely answer that has certain words.",
            when="When a name or a term has to occur in the answer.",
            source="https://arxiv.org/abs/1804.06609",
            settings=("force_words", *BEAMS),
            runs="constrained_beams",
        ),
        Strategy(
            name="contrastive",
            label="Contrastive search",
            summary="Takes, of the likeliest tokens, the one that repeats least what was said.",
            when="For long answers that should neither repeat themselves nor wander off.",
            source="https://arxiv.org/abs/2202.06417",
            settings=("penalty_alpha", "candidates"),
            runs="contrastive",
            reads_all=True,
            demands=("attention",),
        ),
        Strategy(
            name="dola",
            label="DoLa",
            summary="Takes the token whose probability grows most between an early layer and the last.",
            when="For facts: what late layers add is more often knowledge than habit.",
            source="https://arxiv.org/abs/2309.03883",
            settings=("dola_layers",),
            runs="dola",
        ),
        Strategy(
            name="assisted",
            label="Assisted decoding",
            summary="Lets a small draft model guess ahead, and checks several tokens at once.",
            when="For the text of greedy search, sooner, wherever a small model of the same family exists.",
            source="https://arxiv.org/abs/2211.17192",
            settings=("draft_tokens",),
            runs="assisted",
            demands=("no state", "draft", "same tokenizer"),
        ),
        Strategy(
            name="universal_assisted",
            label="Universal assisted decoding",
            summary="Lets a draft model of any family guess ahead, by way of the text.",
            when="For the text of greedy search, sooner, where the only small model at hand has another tokenizer.",
            source="https://arxiv.org/abs/2502.05202",
            settings=("draft_tokens",),
            runs="universal_assisted",
            demands=("no state", "draft"),
        ),
        Strategy(
            name="prompt_lookup",
            label="Prompt lookup",
            summary="Guesses that the answer goes on like a passage of the prompt, and checks several tokens at once.",
            when="For the text of greedy search, sooner, where the answer quotes the conversation.",
            source="https://huggingface.co/docs/transformers/assisted_decoding#prompt-lookup-decoding",
            settings=("draft_tokens", "matching_ngram"),
            runs="prompt_lookup",
            demands=("no state",),
        ),
        Strategy(
            name="early_exit",
            label="Self-speculative early exit",
            summary="Guesses with the model's first layers and checks several tokens at once with all of them.",
            when="For the text of greedy search, sooner, with models that were trained to exit early.",
            source="https://arxiv.org/abs/2404.16710",
            settings=("exit_layer", "draft_tokens"),
            runs="early_exit",
            demands=("attention", "layers"),
        ),
        Strategy(
            name="green_list",
            label="Watermark: green list",
            summary="Samples with a part of the vocabulary raised, which key and last token choose.",
            when="When who has the key should be able to tell later that a model wrote the text.",
            source="https://arxiv.org/abs/2301.10226",
            settings=("watermark_bias", "watermark_key", "temperature", *TRUNCATION),
            samples=True,
            runs="watermark",
        ),
        Strategy(
            name="synthid",
            label="Watermark: SynthID",
            summary="Samples by a tournament that the key referees, which leaves each token as likely as it was.",
            when="When the text should bear a mark, and read as if it had none.",
            source="https://doi.org/10.1038/s41586-024-08025-4",
            settings=("watermark_key", "temperature", *TRUNCATION),
            samples=True,
            runs="watermark",
        ),
    )
}


def find(name: str) -> Strategy:
    """The row of that name; raises `BadSetting` with the names that there are."""
    try:
        return STRATEGIES[name]
    except KeyError:
        raise BadSetting(
            f"There is no strategy called {name!r}. The strategies are: {', '.join(STRATEGIES)}."
        ) from None
