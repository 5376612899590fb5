"""Weights of records in evaluations and guarantees: a prompt of weight 2 counts as two prompts of weight 1."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import routelearn
from routelearn.data.records import PerformanceRecord, PreferenceRecord, Record
from routelearn.evaluation.evaluate import evaluate
from routelearn.evaluation.thresholds.calibrate import calibrate_by_quality_loss
from routelearn.evaluation.thresholds.guarantee import bound_loss
from routelearn.evaluation.thresholds.losses import losses_of
from routelearn.routers.errors import InputError
from routelearn.training.fit.metrics import auroc, expected_calibration_error, routing_curve

STRONG, WEAK = "large", "small"


class ByNumber(routelearn.Router):
    """The score of "question 17" is 0.17 to 0.67."""

    def quality(self, queries: object) -> np.ndarray:
        gain = np.array([int(str(query).split()[1]) % 100 for query in queries], np.float32) / 200  # type: ignore[attr-defined]
        return np.stack([0.5 + gain, 0.5 - gain], axis=1)


ROUTER = ByNumber([routelearn.Model(STRONG, 1, 2), routelearn.Model(WEAK, 0.1, 0.2)], strong=STRONG, weak=WEAK)


def records(count: int, weights: np.ndarray, seed: int = 0) -> list[Record]:
    random = np.random.default_rng(seed)
    made: list[Record] = []
    for number in range(count):
        gap = random.random() < (number % 100) / 150
        made.append(PerformanceRecord(f"question {number}", STRONG, 1.0, weight=float(weights[number])))
        made.append(PerformanceRecord(f"question {number}", WEAK, 0.0 if gap else 1.0, weight=float(weights[number])))
    return made


def test_a_weight_counts_as_often_as_it_says() -> None:
    weights = np.random.default_rng(1).integers(1, 4, 200).astype(float)
    weighted = records(200, weights)
    repeated = [replace(record, weight=1.0) for record in weighted for _ in range(int(record.weight))]
    one, other = (evaluate({"mine": ROUTER}, rows, bootstrap=5) for rows in (weighted, repeated))
    assert one.weak_quality == pytest.approx(other.weak_quality)
    for name in ("always-weak", "always-strong"):
        assert one[name].values == pytest.approx(other[name].values)
    for figure in ("auroc", "cost99", "apgr", "ece", "cpt50"):
        close = 1e-9 if figure == "auroc" else 0.02
        assert one["mine"].values[figure] == pytest.approx(other["mine"].values[figure], abs=close), figure
    assert any("weights" in note for note in one.notes)
    assert not any("weights" in note for note in other.notes)


def test_equal_weights_change_no_figure() -> None:
    plain, doubled = (evaluate({"mine": ROUTER}, records(100, np.full(100, w)), bootstrap=20) for w in (1.0, 2.0))
    assert plain == doubled


def test_the_log_loss_of_preferences_counts_weights() -> None:
    votes: list[Record] = [
        PreferenceRecord("question 90", STRONG, WEAK, 1.0, weight=3.0),
        PreferenceRecord("question 10", STRONG, WEAK, 0.0),
    ]
    repeated = [replace(vote, weight=1.0) for vote in [votes[0], *votes]] + [replace(votes[0], weight=1.0)]
    found = [evaluate({"mine": ROUTER}, rows, bootstrap=5)["mine"].values["log_loss"] for rows in (votes, repeated)]
    assert found[0] == pytest.approx(found[1])


def test_metrics_without_weights_are_those_of_weights_of_one() -> None:
    random = np.random.default_rng(0)
    scores, ones = random.random(500), np.ones(500)
    strong, weak = (random.random((2, 500)) < [[0.8], [0.5]]).astype(float)
    assert auroc(scores, strong > weak, ones) == pytest.approx(auroc(scores, strong > weak))
    assert routing_curve(scores, strong, weak, ones).apgr == pytest.approx(routing_curve(scores, strong, weak).apgr)
    assert expected_calibration_error(scores, strong, weight=ones) == pytest.approx(
        expected_calibration_error(scores, strong)
    )


def test_a_bound_on_weighted_labels_holds_for_all_prompts() -> None:
    """Prompts on which weak fails are chosen twice as often: without weights the loss would look too large."""
    random = np.random.default_rng(0)
    number = 20_000
    scores = random.integers(1, 50, number) / 50  # few thresholds, so that the test is quick
    gap = (random.random(number) < 0.3 * scores).astype(float)
    size = np.where(random.random(number) < 0.5, 2.0, 0.7) * (1 + gap)
    size /= size.sum()
    beyond = weighted = plain = 0.0
    for _ in range(60):
        rows = random.choice(number, 1000, p=size)
        labelled = [
            PerformanceRecord(f"question {row} {place}", model, score, weight=1 / size[row])
            for place, row in enumerate(rows.tolist())
            for model, score in ((STRONG, 1.0), (WEAK, 1 - gap[row]))
        ]
        losses = losses_of(labelled, STRONG, WEAK)
        of_losses = scores[[int(str(query).split()[1]) for query in losses.queries]]
        found = bound_loss(losses, of_losses, strong=STRONG, weak=WEAK, max_quality_loss=0.06)
        true = float(np.where(scores < found.threshold, gap, 0).mean())
        beyond += true > 0.06
        weighted += found.loss - true
        plain += float(np.where(of_losses < found.threshold, losses.gap, 0).mean()) - true
    assert beyond <= 6
    assert abs(weighted / 60) < 0.004 < plain / 60


def test_a_calibration_says_that_it_counts_weights() -> None:
    weights = 1 + (np.arange(1200) % 3) / 10
    report = calibrate_by_quality_loss(ROUTER, records(1200, weights), 0.2).report
    assert any("weights" in note for note in report.notes)
    shares = [row.strong_share for row in report.rows]
    assert shares == sorted(shares)


def test_clopper_and_pearson_refuse_weights() -> None:
    losses = losses_of(records(300, 1 + np.arange(300) / 300), STRONG, WEAK)
    with pytest.raises(InputError, match="unequal weights; expected 'betting'"):
        bound_loss(
            losses,
            ROUTER.score(losses.queries),
            strong=STRONG,
            weak=WEAK,
            max_quality_loss=0.2,
            method="clopper-pearson",
        )
