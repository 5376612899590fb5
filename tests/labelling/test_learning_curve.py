"""What more labels would buy: sizes, folds, the drawn-on curve, and the labels for a guarantee."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from routelearn.data.records import PerformanceRecord, PreferenceRecord, Record, record_key
from routelearn.labelling.curve_fit import extrapolated
from routelearn.labelling.learning_curve import (
    LearningCurve,
    _held_out_scores,
    labels_for_guarantee,
    measure_curve,
)
from routelearn.routers.errors import InputError

if TYPE_CHECKING:
    from routelearn.data.sample import Sample

PAIR = ("sim-max", "sim-small")


def some(records: list[Record], prompts: int) -> list[Record]:
    kept = set(list(dict.fromkeys(map(record_key, records)))[:prompts])
    return [record for record in records if record_key(record) in kept]


@pytest.fixture(scope="module")
def curve(sample: Sample) -> LearningCurve:
    return measure_curve(some(list(sample.performances), 64), *PAIR, bootstrap=50)


@pytest.mark.slow
def test_a_curve_has_measured_points_and_three_that_it_is_drawn_on_to(curve: LearningCurve) -> None:
    assert [(point.labels, point.measured) for point in curve.points] == [
        (25, True),
        (51, True),
        (64, False),
        (128, False),
        (256, False),
    ]
    for point in curve.points:
        assert point.log_loss_interval[0] <= point.log_loss <= point.log_loss_interval[1]
        assert point.apgr_interval[0] <= point.apgr <= point.apgr_interval[1]
        assert (point.gain is None) == point.measured
    gains = [point.gain for point in curve.points if point.gain is not None]
    assert gains[0] == 0 <= gains[1] <= gains[2]


@pytest.mark.slow
def test_a_curve_of_preferences(sample: Sample) -> None:
    votes = [
        PreferenceRecord(f"{record_key(one)} ({number})", *PAIR, 0.5 + (number % 3 - 1) / 2)
        for number, one in enumerate(some(list(sample.performances), 60))
    ]
    found = measure_curve(votes[:60], *PAIR, bootstrap=10)
    assert found.losses.unit == "win rate"
    assert len(found.scores) == 60


def test_no_prompt_is_scored_by_a_router_that_saw_it() -> None:
    trained_on: dict[int, set[int]] = {}
    steps: list[tuple[int, int]] = []

    def score(trained: np.ndarray) -> np.ndarray:
        found = np.arange(203.0)
        for row in set(range(203)) - set(trained.tolist()):
            trained_on.setdefault(row, set()).add(len(trained))
        found[trained] = -1e6
        return found

    sizes, scores, centred = _held_out_scores(203, 0, score, lambda done, total: steps.append((done, total)))
    assert sizes == [40, 81, 162]
    assert [len(one) for one in scores] == [2, 2, 1]
    assert all((one == np.arange(203)).all() for one in scores)
    assert all((one > 0).all() for one in centred)
    assert all(found == set(sizes) for found in trained_on.values())
    assert steps[-1] == (25, 25)


def test_a_power_law_is_drawn_on_as_it_is() -> None:
    sizes = [50, 100, 200, 400]
    falling = [0.5 + 2 * size**-0.5 for size in sizes]
    assert extrapolated(sizes, falling, [800], falls=True) == pytest.approx([0.5 + 2 * 800**-0.5])
    rising = [0.7 - 3 / size for size in sizes]
    assert extrapolated(sizes, rising, [1600], falls=False) == pytest.approx([0.7 - 3 / 1600])


def test_a_curve_that_gets_worse_is_drawn_on_level() -> None:
    assert extrapolated([50, 100], [0.6, 0.7], [200, 400], falls=True) == pytest.approx([0.65, 0.65])
    assert np.isnan(extrapolated([50, 100], [0.6, float("nan")], [200], falls=True)).all()


def test_too_few_labels_are_refused(sample: Sample) -> None:
    with pytest.raises(InputError, match="59 prompts have a label; expected 60"):
        measure_curve(some(list(sample.performances), 59), *PAIR)
    with pytest.raises(InputError, match="no query has a score of both"):
        measure_curve([PerformanceRecord("a", "sim-max", 1.0)], *PAIR)


@pytest.mark.slow
def test_a_guarantee_needs_more_labels_for_a_smaller_loss(curve: LearningCurve) -> None:
    needed = [labels_for_guarantee(curve, loss) for loss in (0.5, 0.04, 0.02)]
    assert needed[0].share > 0
    assert needed[0].needed == needed[0].labels == 64
    assert needed[1].needed is not None
    assert needed[2].needed is not None
    assert 64 < needed[1].needed < needed[2].needed
    with pytest.raises(InputError, match="max_quality_loss is 2"):
        labels_for_guarantee(curve, 2)
    with pytest.raises(InputError, match="confidence is 1"):
        labels_for_guarantee(curve, 0.02, 1)
