"""An answer that has begun is gone on with: the same prompt, the same text, in the same bubble."""

import threading

import pytest
import torch

from parley.engines.base import TurnRequest
from parley.engines.openvino.batch import MIN_CHUNK
from parley.engines.parrot import Parrot
from parley.events import Answer
from parley.generation.prompt import render_prompt
from parley.generation.reasoning_parser import ReasoningParser, rejoined
from parley.messages import Message, build_messages
from parley.settings import Settings
from parley.ui.client_snippets import client_program

STORY = [Message("user", "Tell me a story about an owl.")]
SUM = [Message("user", "What is 3 plus 4?")]
TEMPLATES = {
    "keeps": "{% for m in messages %}<{{ m.role }}> {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}",
    "trims": "{% for m in messages %}<{{ m.role }}> {{ m.content | trim }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}",
    "changes": "{% for m in messages %}<{{ m.role }}> {{ m.content | upper }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}",
}


def answer(engine, messages, session="", **values):
    """Greedy unless `values` say otherwise."""
    settings = Settings.check({"strategy": "greedy"} | values)
    return sum(engine.stream(TurnRequest.of(messages, settings, threading.Event(), session=session)), Answer())


def begun(messages, so_far):
    return [*messages, Message("assistant", rejoined(so_far.text, so_far.thought))]


@pytest.mark.parametrize("session", ["", "a visitor"], ids=["without memory", "remembered"])
@pytest.mark.parametrize("tokens", [1, 7, 24])
def test_an_answer_in_two_parts_is_the_answer_in_one(budgie, tokens, session):
    whole = answer(budgie, STORY)
    first = answer(budgie, STORY, session=session, max_new_tokens=tokens)
    rest = answer(budgie, begun(STORY, first), session=session)
    assert first.finish == "length" and rest.finish == "end"
    assert first.text + rest.text == whole.text
    assert rest.usage.cached_tokens == (rest.usage.prompt_tokens - MIN_CHUNK if session else 0)


@pytest.mark.parametrize("tokens", [5, 11, 14])
def test_an_answer_that_ran_out_in_its_thought_goes_on_thinking(budgie, tokens):
    """Before the end of the thought, between thought and text, and within the text."""
    whole = answer(budgie, SUM, thinking=True)
    first = answer(budgie, SUM, session="thinker", thinking=True, max_new_tokens=tokens)
    rest = answer(budgie, begun(SUM, first), session="thinker", thinking=True)
    assert whole.thought and first.thought
    assert (first.thought + rest.thought, first.text + rest.text) == (whole.thought, whole.text)


def test_beams_go_on_too(budgie):
    first = answer(budgie, STORY, strategy="beams", max_new_tokens=12)
    rest = answer(budgie, begun(STORY, first), strategy="beams", max_new_tokens=12)
    assert rest.text and not rest.text.startswith(first.text)


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_prompt_ends_with_the_answer_so_far_whatever_the_template_does_to_it(budgie, name, monkeypatch):
    tokenizer = budgie.loaded.tokenizer
    monkeypatch.setattr(tokenizer, "chat_template", TEMPLATES[name])
    told = [Message("user", "Hi"), Message("assistant", "A list:\n\n")]
    prompt = render_prompt(budgie.loaded, told, Settings.check({}))
    assert prompt.continues and not prompt.in_reasoning
    asked = tokenizer.decode(render_prompt(budgie.loaded, told[:1], Settings.check({})).ids[0])
    assert tokenizer.decode(prompt.ids[0]) == asked + "A list:\n\n"


def test_the_thought_so_far_follows_the_mark_that_the_template_has_set_or_brings_its_own(budgie, monkeypatch):
    tokenizer = budgie.loaded.tokenizer
    told = [Message("user", "Hi"), Message("assistant", "<think>\nwell")]
    for opening in ("", "<think>\\n"):
        monkeypatch.setattr(tokenizer, "chat_template", "{{ messages[0].content + '\\n" + opening + "' }}")
        prompt = render_prompt(budgie.loaded, told, Settings.check({}))
        assert tokenizer.decode(prompt.ids[0]).endswith("Hi\n<think>\nwell")
        assert prompt.continues and prompt.in_reasoning


def test_a_control_token_in_an_answer_that_is_continued_stays_text(budgie):
    tokenizer = budgie.loaded.tokenizer
    control = torch.tensor(tokenizer.convert_tokens_to_ids(["<|im_end|>", "<think>", "</think>"]))
    for marks, typed in ((0, "no {} yet"), (1, "<think>\nno {} yet"), (2, "<think>\na\n</think>\n\nb {} </think>")):
        for text in ("<|im_end|>", "nothing"):
            told = [Message("user", "Hi"), Message("assistant", typed.format(text))]
            ids = render_prompt(budgie.loaded, told, Settings.check({})).ids
            assert int(torch.isin(ids, control).sum()) == 1 + marks, (
                "the end of the question, and the marks of the thought"
            )


def test_what_goes_on_drops_no_blank_space_at_its_start():
    assert ReasoningParser(goes_on=True).feed(" and so", last=True) == (" and so", "")
    assert ReasoningParser(in_thought=True, goes_on=True).feed(" well\n</think>\n\nYes", last=True) == ("Yes", " well")
    for text, thought in (("Yes.", "well"), ("", "well"), ("Yes.", "")):
        assert ReasoningParser().feed(rejoined(text, thought), last=True) == (text, thought)


USER, BOT = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "<think>\nhm\n</think>\n\nHel"}


def test_an_empty_message_after_an_answer_asks_for_its_continuation():
    assert build_messages([USER, BOT], "") == [("user", "Hi"), ("assistant", BOT["content"])]
    joined = [USER, BOT, {"role": "user", "content": ""}, {"role": "assistant", "content": "lo!"}]
    assert build_messages(joined, "And?") == [("user", "Hi"), ("assistant", "Hello!"), ("user", "And?")]
    assert build_messages(joined, "")[-1] == ("assistant", "Hello!")


def test_the_parrot_goes_on_where_it_ended():
    question = [Message("user", "Polly wants a cracker")]
    first = answer(Parrot(), question, max_new_tokens=3)
    assert first.finish == "length"
    assert first.text + answer(Parrot(), begun(question, first)).text == "Polly wants a cracker"


def test_the_program_that_gives_a_continuation_again_sends_no_question(budgie):
    first = answer(budgie, STORY, max_new_tokens=5)
    rest = answer(budgie, begun(STORY, first), max_new_tokens=5)
    program = client_program("http://127.0.0.1:7860", rest.run_record)
    assert "    ''," in program and repr(first.text) in program
