"""Budgie's tokenizer: a byte-level BPE learned from the corpus, with the chat markup and the chat template.

Digits stay single and newlines stand alone. The template puts a space before every content, so that a word has the
same tokens in a question and in an answer; an answer therefore begins with a space, which the reader strips.
Every letter of the languages written in Latin is one token, so that no copy breaks between the bytes of a letter.
"""

import json
from collections.abc import Iterator
from itertools import islice

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from training.corpus import Conversation, conversations
from training.corpus.letters import LATIN, MARKS
from training.exam import held_out_turns, held_out_values

VOCABULARY = 2048
CONTEXT = 1024  # tokens
PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
PIECES = r"\n|'(?:s|t|re|ve|m|ll|d)\b| ?\p{N}| ?[\p{L}\p{M}]+| ?[^\s\p{L}\p{M}\p{N}]+| +(?= )|\s"
TEMPLATE = """\
{%- set parts = namespace(system=[]) -%}
{%- for message in messages if message['role'] == 'system' -%}
  {%- set parts.system = parts.system + [message['content'] | trim] -%}
{%- endfor -%}
{%- if enable_thinking is defined and enable_thinking -%}
  {%- set parts.system = parts.system + ['/think'] -%}
{%- endif -%}
{%- set system = parts.system | join(' ') | trim -%}
{%- if system -%}{{- '<|im_start|>system\\n ' ~ system ~ '<|im_end|>\\n' -}}{%- endif -%}
{%- for message in messages if message['role'] != 'system' -%}
  {%- set content = message['content'] | trim -%}
  {%- if message['role'] == 'assistant' and not loop.last -%}
    {%- set content = (content.split('</think>') | last).split('<think>') | first | trim -%}
  {%- endif -%}
  {{- '<|im_start|>' ~ message['role'] ~ '\\n' ~ ('' if content.startswith('<think>') else ' ') ~ content -}}
  {{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""


def render(conversation: Conversation) -> tuple[str, list[tuple[int, int]]]:
    """The text that the template gives for `conversation`, and the character spans that the model must write."""
    system = " ".join(filter(None, [conversation.system, "/think" if conversation.think else None]))
    text = f"{START}system\n {system}{END}\n" if system else ""
    spans = []
    for turn in conversation.turns:
        text += f"{START}user\n {turn.user}{END}\n{START}assistant\n"
        begin, last = len(text), turn is conversation.turns[-1]
        text += f"<think>\n {turn.thought}\n</think>\n\n" if conversation.think and last else ""
        text += f" {turn.answer}{END}"
        if last or not conversation.think:  # with /think an answer without a thought must not be learned
            spans.append((begin, len(text)))
        text += "\n"
    return text, spans


def corpus(seed: int) -> Iterator[Conversation]:
    """The corpus without anything that the exam holds out."""
    return conversations(seed, held_out=held_out_turns(), values=held_out_values())


def with_letters(tokenizer: Tokenizer) -> Tokenizer:
    """The same byte-level BPE with each of `LATIN` and `MARKS` as one token, in the place of the last merges.

    The letters are merged before anything else. All other tokens keep their ids.
    """
    alphabet = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    merges: dict[str, tuple[str, str]] = {}  # by what they make
    for letter in [*LATIN, *MARKS]:
        symbols = alphabet.pre_tokenize_str(letter)[0][0]
        for end in range(2, len(symbols) + 1):
            merges[symbols[:end]] = (symbols[: end - 1], symbols[end - 1])
    state = json.loads(tokenizer.to_str())
    vocabulary = state["model"]["vocab"]
    new = [token for token in merges if token not in vocabulary]
    others = [pair for pair in map(tuple, state["model"]["merges"]) if "".join(pair) not in merges]
    kept, dropped = others[: len(others) - len(new)], others[len(others) - len(new) :]
    for token, pair in zip(new, dropped, strict=True):
        vocabulary[token] = vocabulary.pop("".join(pair))
    state["model"]["merges"] = [*merges.values(), *kept]
    return Tokenizer.from_str(json.dumps(state))


def train_tokenizer() -> PreTrainedTokenizerFast:
    """A new tokenizer of `VOCABULARY` tokens, with all letters, the template and the markup."""
    return wrapped(with_letters(learned_merges()))


def learned_merges(conversation_count: int = 40_000) -> Tokenizer:
    """A byte-level BPE learned from so many conversations."""
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(PIECES), behavior="isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 2,  # <think> and </think> are added below
        special_tokens=[PAD, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    chosen = islice(corpus(seed=77), conversation_count)
    tokenizer.train_from_iterator((render(each)[0].replace(START, "").replace(END, "") for each in chosen), trainer)
    return tokenizer


def wrapped(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """`tokenizer` with the markup and the chat template."""
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[START],
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )
    fast.add_tokens(["<think>", "</think>"])
    fast.chat_template = TEMPLATE
    return fast
