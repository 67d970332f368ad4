"""The exam is large, its checks tell right from wrong, and it marks what a model really says."""

import pytest

from training.exam import CHECKS, Question, passes, questions, sit, table

CASES = {
    "says": ("Oslo|oslo city", "It is oslo.", "It is Osloer."),
    "says_symbol": ("🐱|🐈", "Here: 🐱", "Here: 🐶"),
    "exactly": ("velvet harbour", "velvet harbour", "velvet harbor"),
    "numbers": ("3 4 5", "3, 4, 5.", "3, 4, 6, 5."),
    "number": ("15", "7 + 8 = 15", "7 + 8 = 115"),
    "story": (
        "robin & Odette",
        "Once upon a time, a small robin named Odette lived near the sea. Odette wanted to learn a new song. "
        "At last Odette came home, and home was warm.",
        "Once upon a time, a small robin named Odetta lived near the sea. Odetta wanted to learn a new song. "
        "At last Odetta came home, and home was warm.",
    ),
    "poem": ("", "Softly I sing,\nthe hills are far away,\ntime to fly again.", "- one\n- two\n- three"),
    "list_of": ("2", "- Apple\n- Pear", "- Apple\n- Apple"),
    "code": ("def & return", "Sure:\n\n```python\ndef f(a):\n    return a\n```", "```python\ndef f(a) return a\n```"),
    "one_word": ("hot", "Hot.", "It is hot."),
    "capitals": ("MEOW", "A CAT SAYS MEOW.", "A CAT SAYS meow."),
    "pirate": ("Lisbon", "Arr! It is Lisbon.", "It is Lisbon, sir."),
    "thinks": ("9|nine", "<think>\n 6 plus 3 is 9.\n</think>\n\n 9.", "9."),
}


def test_every_check_has_a_case():
    assert CASES.keys() == CHECKS.keys() == {question.check for question in questions()}


@pytest.mark.parametrize("check", CHECKS)
def test_a_check_accepts_the_right_answer_and_refuses_a_wrong_one(check):
    expected, right, wrong = CASES[check]
    assert CHECKS[check](right, expected)
    assert not CHECKS[check](wrong, expected)
    assert not CHECKS[check]("", expected)


def test_a_thought_nobody_asked_for_is_wrong():
    reply = "<think>\n Hm.\n</think>\n\n Oslo"
    assert not passes(Question("", "says", ("?",), "Oslo"), reply)
    assert passes(Question("", "says", ("?",), "Oslo"), "Oslo")


@pytest.mark.parametrize(
    "broken", ["<think>\n 9.\n</think>", "<think></think> 9", "<think> a\n</think> 8", "9 <think>"]
)
def test_a_malformed_thought_is_wrong(broken):
    assert not CHECKS["thinks"](broken, "9")


def test_the_exam_is_large_and_every_question_once():
    asked = questions()
    assert len(asked) >= 150
    assert len({(question.system, question.turns) for question in asked}) == len(asked)
    assert len({question.skill for question in asked}) >= 25


@pytest.mark.slow
def test_the_shipped_weights_answer_a_sample(budgie):
    skills = ("recall_afresh", "copying_afresh", "capitals", "decoding_terms", "thinking")
    asked = [question for skill in skills for question in [q for q in questions() if q.skill == skill][:5]]
    results = sit(budgie, asked)
    wrong = [(result.question.turns, result.reply) for result in results if not result.passed]
    assert len(results) == 25
    assert len(wrong) <= 4, wrong
    assert f"| **{25 - len(wrong)}** | **25** " in table(results)
