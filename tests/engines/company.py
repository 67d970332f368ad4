"""Many turns at once: what they are asked, and what each of them answers."""

import threading
from concurrent.futures import ThreadPoolExecutor

from parley.messages import Message
from parley.strategies import STRATEGIES
from tests.engines.openvino.asking import answer

CHOSEN = {"force_words": "lantern", "exit_layer": 3}
TOPICS = ["an owl", "the sea", "a lamp by the river", "the number nine", "red tea", "a bird that counts"]
LONG = "Tell me a story about an owl and a lamp by the river. "


def values_of(strategy, seed=0):
    """The settings of a turn of this strategy."""
    used = {key: value for key, value in CHOSEN.items() if key in STRATEGIES[strategy].uses}
    return {"strategy": strategy, "max_new_tokens": 16, "seed": seed, **used}


class Company:
    """The turns of one engine. `engine` and `helper`, the draft model, are functions, because loading takes long."""

    def __init__(self, engine, helper=None):
        self._engine, self._helper = engine, helper

    def ask(self, turn, cancel=None, **more):
        """The answer to one of many questions, of different lengths; `turn` is its number and its values."""
        number, values = turn
        topic = TOPICS[number % len(TOPICS)]
        question = [Message("user", LONG * (number % 3) + f"Tell me about {topic}, {number}.")]
        helped = {"helper": self._helper()} if self._helper else {}
        made = answer(self._engine(), question, cancel, session=f"{number}", **helped, **(values | more))
        return made.text, made.usage.new_tokens, [beam.text for beam in made.beams]

    def together(self, turns, **more):
        """The answers of turns that run at the same time."""
        barrier = threading.Barrier(len(turns))

        def begin(turn):
            barrier.wait()
            return self.ask(turn, **more)

        with ThreadPoolExecutor(len(turns)) as threads:
            return list(threads.map(begin, turns))
