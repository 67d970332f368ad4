import threading

import pytest

from parley.engines.base import TurnRequest
from parley.errors import BadConversation
from parley.messages import Message, build_messages, drop_oldest_turn, merge_system_into_user
from parley.settings import Settings

USER, BOT = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}


def test_both_shapes_of_gradios_history_give_the_same_messages():
    parts = [
        {"role": "user", "metadata": None, "content": [{"type": "text", "text": "Hi"}], "options": None},
        {"role": "assistant", "metadata": {"title": None}, "content": [{"type": "text", "text": "Hello!"}]},
    ]
    expected = [Message("user", "Hi"), Message("assistant", "Hello!"), Message("user", "And now?")]
    assert build_messages([USER, BOT], "And now?") == build_messages(parts, "And now?") == expected


def test_thoughts_notices_and_empty_turns_of_old_answers_are_left_out():
    history = [
        USER,
        {"role": "assistant", "content": "hm", "metadata": {"title": "Thought", "status": "done"}},
        {"role": "assistant", "content": "<think>\nhm, hm\n</think>\n\nHello!"},
        {"role": "assistant", "content": "Prompt: 3", "metadata": {"title": "4 tokens · finished"}},
        {"role": "assistant", "content": ""},
    ]
    assert build_messages(history, "And now?") == [("user", "Hi"), ("assistant", "Hello!"), ("user", "And now?")]


def test_a_thought_that_was_stopped_before_it_closed_is_left_out_too():
    history = [USER, {"role": "assistant", "content": "<think>I wonder"}]
    assert build_messages(history, "Well?") == [("user", "Hi\n\nWell?")]


def test_a_think_tag_in_the_middle_of_an_answer_is_text():
    answer = "Models write <think> before a thought."
    assert build_messages([USER, {"role": "assistant", "content": answer}], "ok")[1].content == answer


def test_neighbours_of_one_role_are_merged():
    assert build_messages([USER, USER, BOT, BOT], "x") == [
        ("user", "Hi\n\nHi"),
        ("assistant", "Hello!\n\nHello!"),
        ("user", "x"),
    ]


def test_system_messages_join_the_system_prompt_at_the_top():
    history = [{"role": "system", "content": "Be brief."}, USER, BOT]
    assert build_messages(history, "x", "You are a bird.")[0] == ("system", "You are a bird.\n\nBe brief.")


def test_half_a_character_as_programs_leave_it_where_they_cut_an_emoji_is_a_question_mark(budgie):
    said = build_messages([], "Hello \ud83d there 👋", Settings.check({"system_prompt": "\ud83d"}).system_prompt)
    assert said == [("system", "?"), ("user", "Hello ? there 👋")]
    assert list(budgie.stream(TurnRequest.of(said, Settings.check({"max_new_tokens": 3}), threading.Event())))[
        -1
    ].finish


def test_a_history_that_ends_with_a_question_needs_no_message():
    assert build_messages([USER], "") == [("user", "Hi")]


@pytest.mark.parametrize("history", [[], [BOT]])
@pytest.mark.parametrize("message", ["", "  \n "])
def test_no_question_is_refused(history, message):
    with pytest.raises(BadConversation, match="Type a message"):
        build_messages(history, message)


@pytest.mark.parametrize(
    ("item", "sentence"),
    [
        ({"role": "tool", "content": "x"}, '"system", "user" or "assistant", not \'tool\''),
        ({"role": None, "content": "x"}, "not 'None'"),
        ({"role": ["user"], "content": "x"}, "role of a message"),
        ({"role": "user", "content": 5}, "must be text"),
        (
            {"role": "user", "content": [{"type": "text", "text": "What is this?"}, {"type": "image_url"}]},
            "a part of the type 'image_url'. Only text can be read: leave it out.",
        ),
        ({"role": "user", "content": [{"type": "text", "text": 5}]}, "a part of the type 'text'"),
        ({"role": "user", "content": [{"type": "file", "file": {"path": "x"}}]}, "a part of the type 'file'"),
        ({"role": "assistant", "content": ["Hello"]}, "a part of the type 'str'"),
        ({"role": "user"}, "must be text"),
        ("hello", "must be an object"),
        (None, "must be an object"),
        ({"role": "user", "content": "x" * 32_001}, "at most 32000 characters; this one has 32001"),
    ],
)
def test_anything_else_in_a_history_is_refused_in_a_sentence(item, sentence):
    with pytest.raises(BadConversation, match=sentence):
        build_messages([item], "x")


def test_a_very_long_history_is_refused():
    with pytest.raises(BadConversation, match="501 messages"):
        build_messages([USER] * 501, "x")


def test_neither_the_history_nor_its_items_are_changed():
    history = [dict(USER), dict(BOT)]
    build_messages(history, "x", "s")
    assert history == [USER, BOT]


def test_folding_puts_the_system_prompt_into_the_first_user_turn():
    messages = [
        Message("system", "Be brief."),
        Message("user", "Hi"),
        Message("assistant", "Ho"),
        Message("user", "x"),
    ]
    assert merge_system_into_user(messages) == [("user", "Be brief.\n\nHi"), ("assistant", "Ho"), ("user", "x")]
    assert merge_system_into_user(messages[1:]) == messages[1:]


def test_the_oldest_turn_is_dropped_whole_and_the_system_message_stays():
    system, ask, answer, again = (
        Message(*m) for m in (("system", "s"), ("user", "1"), ("assistant", "2"), ("user", "3"))
    )
    assert drop_oldest_turn([system, ask, answer, again]) == [system, again]
    assert drop_oldest_turn([ask, answer, again]) == [again]
    assert drop_oldest_turn([system, again]) is None
    assert drop_oldest_turn([answer, again]) == [again]


def test_a_conversation_has_as_many_messages_as_the_owner_allows(monkeypatch):
    monkeypatch.setenv("MAX_MESSAGES", "2")
    turn = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]
    assert len(build_messages(turn, "and now?")) == 3
    with pytest.raises(BadConversation, match=r"^The conversation has 3 messages; at most 2 fit\. Clear the chat\.$"):
        build_messages([*turn, turn[0]], "and now?")
