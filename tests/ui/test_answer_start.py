"""An answer that begins with the visitor's words goes on from them, as transformers' `continue_final_message` does."""

import asyncio

import gradio as gr
import pytest

from parley.serving import turn
from parley.settings import OPTIONS
from parley.ui.chat_function import ChatFunction

QUESTION, START = "Hello, who are you?", "I am an owl, and"


def answered(**values):
    """The last answer of a turn with these settings."""

    async def collect():
        request = gr.Request(session_hash="starts")
        given = [({"model": "budgie", "max_new_tokens": 6} | values).get(name) for name in OPTIONS]
        return [each async for each in ChatFunction(turn.reply).take_turn(QUESTION, [], given, request)]

    answer, failure = asyncio.run(collect())[-1]
    assert failure is None
    return answer


def test_the_answer_has_the_words_and_the_prompt_is_that_of_transformers(budgie):
    answer = answered(answer_start=START, strategy="greedy")
    messages = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": START}]
    ids = budgie.loaded.tokenizer.apply_chat_template(messages, continue_final_message=True)
    assert list(answer.origin.prompt_ids) == ids["input_ids"]
    assert answer.text.startswith(START) and len(answer.text) > len(START)
    assert answer.usage.new_tokens == len(answer.ids) == 6


@pytest.mark.parametrize("strategy", ["beams", "prompt_lookup"])
def test_the_words_stay_whatever_the_strategy(strategy):
    assert answered(answer_start=START, strategy=strategy).text.startswith(START)


def test_where_the_model_thinks_they_open_the_thought():
    answer = answered(answer_start="The visitor wants", thinking=True, max_new_tokens=12)
    assert answer.thought.startswith("The visitor wants")
    assert not answer.text.startswith("The visitor wants")
