"""A judge compared with people."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from routelearn.data.records import PerformanceRecord, PreferenceRecord
from routelearn.labelling import measure_agreement
from routelearn.labelling.agreement import human_preferences, oriented


def test_the_figures_are_those_of_scikit_learn() -> None:
    random = np.random.default_rng(0)
    human = random.choice([0.0, 0.5, 1.0], 300)
    judge = np.where(random.random(300) < 0.6, human, random.choice([0.0, 0.25, 0.5, 1.0], 300))
    found = measure_agreement(judge, human)
    ours, theirs = np.sign(judge - 0.5).astype(int), np.sign(human - 0.5).astype(int)
    decided = theirs != 0
    assert found.pairs == 300
    assert found.agreement == pytest.approx((ours == theirs).mean())
    assert found.kappa == pytest.approx(cohen_kappa_score(ours, theirs))
    assert found.auroc == pytest.approx(roc_auc_score(theirs[decided] > 0, judge[decided]))
    both = decided & (ours != 0)
    assert (found.decided, found.agreement_decided) == (both.sum(), pytest.approx((ours == theirs)[both].mean()))


def test_the_intervals_have_the_width_that_theory_gives() -> None:
    random = np.random.default_rng(1)
    human = random.choice([0.0, 1.0], 400)
    judge = np.where(random.random(400) < 0.8, human, 1 - human)
    found = measure_agreement(judge, human)
    error = math.sqrt(0.8 * 0.2 / 400)
    intervals = (found.agreement_interval, found.kappa_interval, found.auroc_interval)
    for truth, scale, (low, high) in zip((0.8, 0.6, 0.8), (1, 2, 1), intervals, strict=True):
        assert low < truth < high
        assert high - low == pytest.approx(2 * 1.96 * error * scale, rel=0.15)


def test_pairs_of_one_prompt_are_resampled_together() -> None:
    judge, human = [1.0, 0.0] * 50, [1.0, 1.0] * 50
    alone = measure_agreement(judge, human).agreement_interval
    prompts = ["p" if value == 1 else "q" for value in judge]
    together = measure_agreement(judge, human, prompts).agreement_interval
    assert alone[1] - alone[0] < 0.3 < together[1] - together[0]


def test_a_figure_that_is_not_defined_is_nan() -> None:
    found = measure_agreement([1, 1], [1, 1])
    assert found.agreement == 1
    assert math.isnan(found.kappa)
    assert math.isnan(found.auroc)
    ties = measure_agreement([0.5], [0.5])
    assert (ties.agreement, ties.decided) == (1, 0)
    assert math.isnan(ties.agreement_decided)


def test_several_votes_on_a_pair_are_averaged_whichever_way_round() -> None:
    records = [
        PreferenceRecord("Q", "x", "y", 1.0),
        PreferenceRecord(" q ", "y", "x", 0.0),
        PreferenceRecord("q", "x", "y", 0.5),
    ]
    known = human_preferences(records)
    assert oriented(known, "q", "x", "y") == pytest.approx(2.5 / 3)
    assert oriented(known, "q", "y", "x") == pytest.approx(0.5 / 3)
    assert oriented(known, "q", "x", "z") is None


def test_scores_of_people_become_preferences() -> None:
    records = [PerformanceRecord("q", model, score) for model, score in (("x", 0.9), ("y", 0.3), ("z", 0.3))]
    known = human_preferences(records)
    assert [oriented(known, "q", *pair) for pair in (("x", "y"), ("z", "x"), ("y", "z"))] == [1, 0, 0.5]
