"""The verdict at the end of what a judge wrote."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routelearn.labelling.verdicts import pair_verdict, scale_verdict


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("Both are fine.\n\n[[A]]", 1),
        ("[[b]]", 0),
        ("**[[C]]**", 0.5),
        ("My final verdict is: [[B]].", 0),
        ("Verdict: A", 1),
        ("**Final verdict:** **B**", 0),
        ("Winner: Answer B", 0),
        ("The better answer is A.", 1),
        ("**A is better**", 1),
        ("A", 1),
        ("Tie.", 0.5),
        ("[[A>B]]", 1),
        (r"\boxed{B}", 0),
        ('{"reason": "It says [[B]].", "verdict": "A"}', 1),
        ('Reasons.\n```json\n{\n  "winner": "answer_b"\n}\n```', 0),
        ('{"reason": "It ends with {\\"verdict\\": \\"B\\"}", "verdict": "tie"}', 0.5),
        ("The answer says '[[B]]', which is no verdict.\n[[A]]", 1),
        ("[[A]]\n```\n", 1),
        # no verdict
        ("", None),
        ("[[A]] or [[B]]", None),
        ("[[A]]\nThank you for the question", None),
        ("I like A, but also B.", None),
        ("[[D]]", None),
        ("Answer A is not better", None),
        ('{"score": 3}', None),
        ('{"verdict": true}', None),
    ],
)
def test_the_verdict_on_a_pair(text: str, verdict: float | None) -> None:
    assert pair_verdict(text) == verdict


@pytest.mark.parametrize(
    ("text", "rating"),
    [
        ("Good.\n[[7]]", 7),
        ("Rating: 7/10", 7),
        ("**Rating:** 9", 9),
        ("The score is 8.", 8),
        ("8 out of 10", 8),
        ("Score: 7,5", 7.5),
        ("[[10]]", 10),
        ('{"score": 8.5}', 8.5),
        ('{"rating": "7/10"}', 7),
        ("[[0]]", None),
        ("[[11]]", None),
        ("Score: -3", None),
        ("I would say seven", None),
        ('{"score": true}', None),
        ("[[3]] or [[4]]", None),
    ],
)
def test_the_verdict_on_a_scale(text: str, rating: float | None) -> None:
    found = scale_verdict(text)
    assert found == (None if rating is None else pytest.approx((rating - 1) / 9))


@given(st.text())
def test_any_text_has_a_verdict_or_none(text: str) -> None:
    assert pair_verdict(text) in {0.0, 0.5, 1.0, None}
    found = scale_verdict(text)
    assert found is None or 0 <= found <= 1


@given(st.text(max_size=200))
def test_what_stands_before_the_last_line_does_not_count(text: str) -> None:
    assert pair_verdict(f"{text}\n[[A]]") == 1


def test_a_judge_that_runs_wild_is_read_in_no_time() -> None:
    for text in ("{" * 100_000 + "}", "[[" * 50_000, " " * 100_000 + "score" * 20_000, "\\boxed{" * 20_000):
        assert pair_verdict(text) is None
        assert scale_verdict(text) is None
