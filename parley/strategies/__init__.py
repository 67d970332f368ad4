"""The decoding strategies: one row each; the dropdown, the API list, the help text and the README table read it."""

from dataclasses import dataclass

from parley.errors import BadSetting

EVERYWHERE = ("repetition_penalty", "max_new_tokens", "stop")  # settings that every strategy uses


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

    @property
    def uses(self) -> tuple[str, ...]:
        """The names of all decoding settings that change what this strategy does."""
        return (*self.settings, *EVERYWHERE, *(("seed",) if self.samples else ()))


STRATEGIES: dict[str, Strategy] = {
    row.name: row
    for row in (
        Strategy(
            name="greedy",
            label="Greedy",
            summary="Always takes the most likely next token.",
            when="For short, factual answers, and when the same question should give the same answer.",
            source="https://huggingface.co/docs/transformers/generation_strategies#greedy-search",
        ),
        Strategy(
            name="sampling",
            label="Sampling",
            summary="Draws the next token at random, weighted by the model's probabilities.",
            when="For conversation and for stories, where variety reads better than certainty.",
            source="https://arxiv.org/abs/1904.09751",
            settings=("temperature", "top_p", "top_k", "min_p"),
            samples=True,
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
