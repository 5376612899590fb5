"""Labels as people spell them; what is not clear is an error, never a guess."""

from __future__ import annotations

from decimal import Decimal

import pytest

from routelearn.data.labels import feedback_score, score_of, winner_preference
from routelearn.routers.errors import InputError

A = [
    "model_a",
    "Response A",
    "answer-a",
    "(A)",
    "[[A]]",
    "A.",
    "chosen: a",
    "a wins",
    "left is better",
    1,
    1.0,
    "1.0",
    "GPT 4o",
]
B = ["model_b", "Response B", "B is better", "RIGHT", "option 2", 2, 2.0, "MINI", " mini ", "b>a", "A << B"]
TIES = [
    "tie",
    "TIE",
    "Tie (both good)",
    "tie_bothbad",
    "both bad",
    "equal",
    "Equally good",
    "same",
    "draw",
    "neither",
    "A = B",
]


@pytest.mark.parametrize(("winners", "preference"), [(A, 1.0), (B, 0.0), (TIES, 0.5)])
def test_a_winner_is_read_in_every_spelling(winners: list[object], preference: float) -> None:
    found = {repr(winner): winner_preference(winner, "gpt-4o", "mini") for winner in winners}
    assert found == dict.fromkeys(found, preference)


@pytest.mark.parametrize(
    "winner",
    ["-1", -1, 0, "0", 3, True, None, "", "none", "N/A", "not a", "a is worse", "A loses", "rejected a", "a or b",
     "[[C]]", "A<=B", "unknown", "model_c", ["a"], float("nan"), "-a"],
)  # fmt: skip
def test_a_winner_that_is_not_clear_is_refused(winner: object) -> None:
    with pytest.raises(InputError, match="does not name a winner"):
        winner_preference(winner, "gpt-4o", "mini")


def test_the_name_of_a_model_wins_over_a_side() -> None:
    assert winner_preference("A", "B", "A") == 0.0
    assert winner_preference("b", "B", "A") == 1.0


@pytest.mark.parametrize(
    ("value", "scale", "score"),
    [("0,5", 1, 0.5), (" 0.25 ", 1, 0.25), (True, 1, 1.0), ("false", 1, 0.0), (Decimal("0.1"), 1, 0.1), (85, 100, 0.85),
     ("85%", 100, 0.85), ("85,5", 100, 0.855), (4, 5, 0.8)],
)  # fmt: skip
def test_scores_are_read_on_their_scale(value: object, scale: float, score: float) -> None:
    assert score_of(value, scale) == pytest.approx(score)


def test_a_number_of_thousands_of_digits_is_an_error_that_can_be_written() -> None:
    with pytest.raises(InputError, match="a number of thousands of digits is not from 0 to 1"):
        score_of(10**5000)


@pytest.mark.parametrize(
    ("value", "scale", "said"),
    [
        (85, 1, "divide the scores by 100, or give --score-scale 100"),
        ("85 %", 1, "'85 %' is a percentage; divide the scores by 100"),
        ("1%", 1, "is a percentage"),
        (4, 1, "--score-scale 5 for five stars"),
        (101, 100, "is not from 0 to 100"),
        (-1, 1, "is not from 0 to 1"),
        ("12,345", 100, "is not a number"),
        (Decimal("NaN"), 1, "is not from 0 to 1"),
        ("good", 1, "is not a number"),
    ],
)
def test_a_score_off_the_scale_says_what_to_do(value: object, scale: float, said: str) -> None:
    with pytest.raises(InputError, match=said):
        score_of(value, scale)


@pytest.mark.parametrize(
    ("value", "score"),
    [
        *(
            (word, 1.0)
            for word in ("up", "thumbs_up", ":thumbsup:", "👍", "👍🏿", "Good", "ACCEPTED", "true", True, 1, "1")
        ),
        *(
            (word, 0.0)
            for word in ("down", "thumbs-down", "👎", "not helpful", "Incorrect", "no", "False", False, 0, "0")
        ),
        (0.25, 0.25),
        ("0,5", 0.5),
    ],
)
def test_feedback_in_words_or_numbers(value: object, score: float) -> None:
    assert feedback_score(value) == score


@pytest.mark.parametrize("value", ["so so", "great, thanks", "", None, -1, "-1", 5, [1], {"score": 1}, float("nan")])
def test_feedback_that_says_neither_is_refused(value: object) -> None:
    with pytest.raises(InputError, match="is not"):
        feedback_score(value)


def test_true_and_words_do_not_depend_on_the_scale() -> None:
    assert [feedback_score(value, 5) for value in (True, "good", 5, 4, "2.5")] == [1, 1, 1, 0.8, 0.5]
