"""Turns the endless corpus into padded batches of token ids with a mask on what the model must write."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from random import Random

import torch
from transformers import PreTrainedTokenizerBase

from training.tokenizer import CONTEXT, corpus, render

CHUNK = 4000  # conversations generated and sorted by length at a time


@dataclass(frozen=True)
class Batch:
    """Conversations of about the same length, or one of them without the first dimension."""

    ids: torch.Tensor  # (conversations, tokens), int64, padded on the right
    answers: torch.Tensor  # the same shape, bool: true where the loss is taken


def encode(tokenizer: PreTrainedTokenizerBase, texts: list[tuple[str, list[tuple[int, int]]]]) -> list[Batch]:
    """One row per rendered conversation; those longer than the context are left out."""
    encoded = tokenizer([text for text, _ in texts], return_offsets_mapping=True, verbose=False)
    rows = []
    for (_, spans), ids, offsets in zip(texts, encoded["input_ids"], encoded["offset_mapping"], strict=True):
        if len(ids) > CONTEXT:
            continue
        begins = torch.tensor([begin for begin, _ in offsets])
        answers = torch.zeros(len(ids), dtype=torch.bool)
        for begin, end in spans:
            answers |= (begins >= begin) & (begins < end)
        rows.append(Batch(torch.tensor(ids), answers))
    return rows


def stack(rows: list[Batch], padding: int) -> Batch:
    """One batch of `rows`, padded on the right."""
    pad = torch.nn.utils.rnn.pad_sequence
    ids = pad([row.ids for row in rows], batch_first=True, padding_value=padding)
    return Batch(ids, pad([row.answers for row in rows], batch_first=True, padding_value=False))


def batches(tokenizer: PreTrainedTokenizerBase, seed: int, tokens: int) -> Iterator[Batch]:
    """Endless batches of at most `tokens` ids, each of conversations of about the same length, in random order."""
    stream, rng = corpus(seed), Random(seed)
    while True:
        rows = encode(tokenizer, [render(conversation) for conversation in islice(stream, CHUNK)])
        rows.sort(key=lambda row: len(row.ids))
        groups: list[list[Batch]] = [[]]
        for row in rows:
            if (len(groups[-1]) + 1) * len(row.ids) > tokens:
                groups.append([])
            groups[-1].append(row)
        rng.shuffle(groups)
        for group in filter(None, groups):
            yield stack(group, tokenizer.pad_token_id)
