"""The sentence that an evaluation ends with."""

from __future__ import annotations

from dataclasses import replace

import pytest

from routelearn.evaluation.conclusion import conclusions
from routelearn.evaluation.report import html_page
from routelearn.evaluation.results import Difference, Report, Result

RESULT = Result(router="mine", values={"apgr": 0.7, "cpt80": 0.45}, intervals={"apgr": (0.6, 0.8)})
REPORT = Report(
    strong="dear",
    weak="cheap",
    queries=100,
    prompts=100,
    preferences=0,
    strong_quality=0.9,
    weak_quality=0.5,
    tasks={},
    results=[RESULT, Result(router="random", role="baseline", values={"apgr": 0.5, "cpt80": 0.8})],
    differences=[],
    pool=None,
    notes=[],
)


def test_the_sentence_says_how_many_strong_calls_a_router_saves() -> None:
    (line,) = conclusions(REPORT)
    assert line == (
        "mine recovers 80% of what dear gains over cheap when it sends 45% of the queries to dear, where a random "
        "choice sends 80%; it is better than a random choice."
    )
    assert line in html_page(REPORT)


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        ((0.01, 0.05), "better than kNN"),
        ((-0.05, -0.01), "worse than kNN"),
        ((-0.02, 0.03), "not measurably different from kNN on these queries"),
    ],
)
def test_the_sentence_names_what_the_interval_beside_knn_allows(interval: tuple[float, float], verdict: str) -> None:
    difference = Difference(router="mine", other="kNN", apgr=0.01, interval=interval)
    other = replace(difference, router="theirs", interval=(0.5, 0.6))
    (line,) = conclusions(replace(REPORT, differences=[other, difference]))
    assert line.endswith(f"it is better than a random choice and {verdict}.")


def test_a_router_that_is_no_better_than_chance_is_called_so() -> None:
    (line,) = conclusions(replace(REPORT, results=[replace(RESULT, intervals={"apgr": (0.45, 0.56)})]))
    assert line.endswith("it is not measurably different from a random choice on these queries.")


def test_without_a_gap_no_router_can_gain() -> None:
    (line,) = conclusions(replace(REPORT, weak_quality=0.95))
    assert line == "dear is no better than cheap on these queries, so that no router can gain from dear."


def test_preferences_alone_give_no_sentence() -> None:
    assert conclusions(replace(REPORT, results=[Result(router="mine", values={"log_loss": 0.6})])) == []
