"""Random passes over a decoder, each row of which is known from the plain way: alone, and by the rules of classes."""

import random
from dataclasses import dataclass

import numpy as np

from parley.engines.openvino.decoder import Decoder, PassInput
from parley.engines.openvino.model_adapter import chunk_ends
from parley.engines.openvino.paged_kv import BlockTable


@dataclass
class Plain:
    """A prompt and an answer, read the plain way; one row of each array for each token."""

    prompt: int  # tokens
    ids: list[int]
    logits: np.ndarray  # (tokens, vocabulary)
    early: np.ndarray  # (layers, tokens, vocabulary)
    hidden: np.ndarray  # (tokens, width)


def read_plainly(decoder: Decoder, prompt: list[int], answer: list[int]) -> Plain:
    """The prompt in pieces as large as may be, then one token after the other, nobody beside them."""
    table, made, begin = BlockTable(decoder.pool), [], 0
    for end in chunk_ends(len(prompt), decoder.max_rows):
        made.append(decoder.run([PassInput(table, prompt[begin:end], True, end - begin)]))
        begin = end
    # Early logits are rows of the head too, so they are asked for where few are.
    early = [np.zeros((len(decoder.early), len(prompt), made[0].logits.shape[1]), np.float32)]
    for id in answer:
        made.append(decoder.run([PassInput(table, [id], False, early=True)]))
        early.append(made[-1].early)
    logits, hidden = (np.concatenate([getattr(each, name) for each in made]) for name in ("logits", "hidden"))
    return Plain(len(prompt), prompt + answer, logits, np.concatenate(early, 1), hidden)


class Sequence:
    """One of the sequences of `Plain`, read again: cut, drafted, cropped and forked as chance has it."""

    def __init__(self, decoder: Decoder, plain: Plain, chance: random.Random) -> None:
        self._decoder, self._plain, self._chance = decoder, plain, chance
        self._table = BlockTable(decoder.pool)
        self._asked: PassInput | None = None
        self._right = 0  # of the rows that were asked for, those that are the sequence's own
        self.compared = 0

    @property
    def over(self) -> bool:
        """Whether all of it is read."""
        return self._table.length == len(self._plain.ids)

    def ask(self, room: int) -> PassInput | None:
        """PassInput for the next pass, at most so many; None where they do not fit."""
        held, chance = self._table.length, self._chance
        left = self._plain.prompt - held
        if left > 0:
            fitting = [n for n in range(2, min(room, left) + 1) if left - n != 1]
            if not fitting:
                return None
            self._right = chance.choice([fitting[-1], *fitting[:1], chance.choice(fitting)])
            ids, piece = self._plain.ids[held : held + self._right], True
        else:
            self._right = min(chance.choice([1, 1, 2, 3, 7]), room, len(self._plain.ids) - held)
            wrong = min(chance.choice([0, 0, 1, 4]), room - self._right)
            ids = self._plain.ids[held : held + self._right] + chance.choices(range(100), k=wrong)
            piece = False
        self._asked = PassInput(self._table, ids, piece, chance.choice([0, 1, len(ids)]) if piece else len(ids))
        return self._asked

    def compare(self, logits: np.ndarray, early: np.ndarray, hidden: np.ndarray) -> None:
        """Looks at what the pass made of the rows that were asked for, and forgets some of them."""
        chance, count = self._chance, len(self._asked.ids)
        begin = self._table.length - count
        skipped = count - self._asked.num_logits
        own = slice(begin + skipped, begin + max(skipped, self._right))
        assert np.array_equal(logits[: own.stop - own.start], self._plain.logits[own])
        assert np.array_equal(hidden[: self._right], self._plain.hidden[begin : begin + self._right])
        if early.size and not self._asked.is_chunk:
            assert np.array_equal(early[:, : own.stop - own.start], self._plain.early[:, own])
        self.compared += own.stop - own.start
        self._table.crop(begin + self._right)
        if chance.random() < 0.15:  # back into the answer, or so far into the prompt that a piece is left
            backs = [n for n in range(self._table.length) if self._plain.prompt - n != 1]
            self._table.crop(chance.choice(backs[-12:]))
        if chance.random() < 0.15:  # another goes on from here, and writes something else
            other = self._table.fork()
            if chance.random() < 0.5:
                other, self._table = self._table, other
            self._decoder.run([PassInput(other, chance.choices(range(100), k=3), is_chunk=False)])


def check(decoder: Decoder, seed: int, prompts: int = 150, answers: int = 16) -> int:
    """Reads three sequences in random passes, strangers beside them; returns how many logits were compared."""
    chance = random.Random(seed)
    free = decoder.pool.num_free
    plain = [
        read_plainly(
            decoder,
            [chance.randrange(100) for _ in range(chance.randint(2, prompts))],
            [chance.randrange(100) for _ in range(answers)],
        )
        for _ in range(3)
    ]
    sequences = [Sequence(decoder, each, chance) for each in plain]
    stranger = BlockTable(decoder.pool)
    while running := [each for each in sequences if not each.over]:
        room, asked = chance.choice([2, 8, decoder.max_rows - 1, decoder.max_rows]), []
        for each in chance.sample(running, chance.randint(1, len(running))):
            if room and (rows := each.ask(room)):
                asked.append((each, rows))
                room -= len(rows.ids)
        if room and chance.random() < 0.5:
            count = chance.randint(1, room)
            asked.append((None, PassInput(stranger, chance.choices(range(100), k=count), count > 1, 0)))
        chance.shuffle(asked)
        wanted = sum(rows.num_logits for _, rows in asked)
        few = wanted * (1 + len(decoder.early)) <= decoder.max_rows
        asked = [(each, rows._replace(early=few and chance.random() < 0.5)) for each, rows in asked]
        made = decoder.run([rows for _, rows in asked])
        logit = early = row = 0
        for each, rows in asked:
            earlies = rows.num_logits * rows.early
            if each:
                each.compare(
                    made.logits[logit : logit + rows.num_logits],
                    made.early[:, early : early + earlies],
                    made.hidden[row : row + len(rows.ids)],
                )
            logit, early, row = logit + rows.num_logits, early + earlies, row + len(rows.ids)
        if stranger.length > 200:
            stranger.crop(chance.randrange(200))
    compared = sum(each.compared for each in sequences)
    del sequences, stranger, asked, running, each, rows
    assert decoder.pool.num_free == free
    return compared
