"""Finding the letter in a reply, as different harnesses do."""

import pytest

from vxl_lightning.evaluation.letters import first_letter, letter_before_bracket, lettered, option_of, ranked_letter

RANKED = {
    "B": "B", "(B)": "B", "B.": "B", "B) Blue": "B", "(B) Blue": "B", "B. Blue.": "B", "The answer is B": "B",
    "The answer is (B).": "B", "The best answer is: B": "B", "Best option: C": "C", "Best Option: (B) Blue": "B",
    "Answer: B": "B", "b": None, "(b)": None, "Blue": "B", "Because of the rain": "B", "A or B": "A", "B, not A": "B",
    "**B**": "B", "It is B because A man waits": "A", "E": "E", "The correct option is D": "D", "答案是B。": "B",
    "": None, "  ": None, "…": None, "\n B \n": "B", "B</s>": "B", "F)": "F", "I cannot tell.": None,
    "The answer is A. No, the answer is D.": "D", "none of these (C": "C", "(A) (D)": "D", "Dvd": "D",
}  # fmt: skip
"""As lmms-eval's mcq_extract reads them, with the letters A to F."""


@pytest.mark.parametrize("reply", RANKED)
def test_the_surest_form_wins(reply: str) -> None:
    assert ranked_letter(reply, "ABCDEF") == RANKED[reply]


def test_the_first_capital_counts_after_phrases_are_out() -> None:
    assert first_letter("The answer is C", "ABCD", ["The answer is"]) == "C"
    assert first_letter("Best: C", "ABCD") == "B"
    assert first_letter("c, E", "ABCD") is None


def test_the_character_before_the_bracket_counts() -> None:
    assert letter_before_bracket("I say (C) or (D)", "ABCD") == "C"
    assert letter_before_bracket(")", "ABCD") is None
    assert letter_before_bracket("AB", "ABCD") is None
    assert letter_before_bracket("E)", "ABCD") is None


def test_options_lose_only_their_own_letter() -> None:
    assert lettered(["x", "y"]) == ["A. x", "B. y"]
    assert lettered(["x"], "({letter}) {option}") == ["(A) x"]
    assert option_of("B. Blue.", 1) == "Blue."
    assert option_of("(B) two\nlines", 1) == "two\nlines"
    assert option_of("B. Franklin", 0) == "B. Franklin"
    assert option_of("A.", 0) == "A."
    assert option_of("Apples", 0) == "Apples"
