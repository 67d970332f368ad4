"""Copies are exact, their wordings and phrases are many, and every letter of Latin occurs in them."""

from random import Random

from training.corpus import copying, facts, letters


def test_a_copy_is_what_the_request_holds():
    rng = Random(1)
    turns = [copying.copy(rng) for _ in range(3000)]
    assert all(turn.answer and turn.answer in turn.user for turn in turns)
    assert len({turn.answer for turn in turns}) > 2800
    assert len({turn.user.replace(turn.answer, "{x}") for turn in turns}) > 2500


def test_every_letter_of_latin_is_copied():
    rng = Random(2)
    said = "".join(copying.phrase(rng) for _ in range(40_000))
    lower = {letter for letter in letters.LATIN if letter.islower() and letter not in "ĳĸŀŉſ"}
    assert not lower - set(said)


def test_accents_change_letters_but_neither_their_number_nor_their_case():
    rng = Random(3)
    for _ in range(500):
        made = letters.accented(rng, "Barley", 0.5)
        assert made != "Barley" and len(made) == 6
        assert made[0].isupper() and made[1:].islower()
    assert letters.accented(rng, "4071", 1.0) == "4071"


def test_a_fact_of_any_kind_is_asked_back_with_the_words_it_was_told_in():
    rng, kinds = Random(4), set()
    for _ in range(600):
        told, asked = facts.telling(rng)
        before = "\n".join(turn.user for turn in told)
        for turn in asked:
            kinds.add(turn.skill)
            assert turn.skill == "not_told" or (turn.core in before and turn.core in turn.answer)
    assert kinds == {"recall", "not_told"}
