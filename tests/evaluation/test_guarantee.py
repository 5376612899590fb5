"""The guaranteed threshold: coverage by simulation, power, refusal, and what it is measured on."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from routelearn.data.records import PerformanceRecord, PreferenceRecord
from routelearn.evaluation.thresholds.guarantee import (
    LEAST_SAVED,
    bound_loss,
    contradiction,
    labels_needed,
    lowest_cost_threshold,
)
from routelearn.evaluation.thresholds.losses import Losses, losses_of
from routelearn.evaluation.thresholds.p_values import METHODS, PValues, betting, clopper_pearson, fewest, upper_limit
from routelearn.routers.errors import InputError

Array = npt.NDArray[np.float64]
Draw = Callable[[np.random.Generator, Array], Array]
DELTA = 0.05


def sure(losses: Array, alpha: float, delta: float) -> Array:
    """A normal approximation: what is not valid for rare losses."""
    deviation = losses.std(axis=0) + 1e-12
    return np.asarray(norm.sf((alpha - losses.mean(axis=0)) * math.sqrt(len(losses)) / deviation))


#: Name: (gaps of queries by their scores, expected loss below a threshold t for uniform scores, alpha, n).
POPULATIONS: dict[str, tuple[Draw, Callable[[Array], Array], float, int]] = {
    # One query in 90 loses everything, whatever its score: one sample in a hundred sees none.
    "rare large losses": (
        lambda random, s: (random.random(len(s)) < 0.011).astype(float),
        lambda t: 0.011 * t,
        0.01,
        420,
    ),
    "rare large losses, few labels": (
        lambda random, s: (random.random(len(s)) < 0.06).astype(float),
        lambda t: 0.06 * t,
        0.05,
        80,
    ),
    "small gains hide rare large losses": (
        lambda random, s: np.where(random.random(len(s)) < 0.05, 1.0, -0.02),
        lambda t: (0.05 - 0.95 * 0.02) * t,
        0.03,
        200,
    ),
    "losses grow with the score, gains below": (
        lambda random, s: (
            np.sign(random.random(len(s)) - 0.5) * (random.random(len(s)) < 0.1) * (s < 0.4)
            + (random.random(len(s)) < s - 0.35) * (s >= 0.4)
        ),
        lambda t: np.where(t < 0.4, 0.0, ((t - 0.35) ** 2 - 0.05**2) / 2),
        0.02,
        400,
    ),
    "every gap is a little above alpha": (lambda random, s: np.full(len(s), 0.055), lambda t: 0.055 * t, 0.05, 150),
}


def violations(population: str, p_values: PValues, trials: int = 200) -> tuple[float, float]:
    """Share of samples whose threshold has a larger expected loss than alpha, and the mean share sent to weak."""
    draw, risk, alpha, n = POPULATIONS[population]
    broken, to_weak = 0, 0.0
    for seed in range(trials):
        random = np.random.default_rng(seed)
        scores = random.random(n)
        reached = min(lowest_cost_threshold(scores, draw(random, scores), alpha, DELTA, p_values), 1.0)
        broken += bool(risk(np.asarray(reached)) > alpha)
        to_weak += reached / trials
    return broken / trials, to_weak


@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("population", list(POPULATIONS))
def test_the_loss_exceeds_the_bound_in_at_most_delta_of_the_samples(population: str, method: str) -> None:
    broken, _ = violations(population, METHODS[method])
    assert broken <= DELTA + 2.5 * math.sqrt(DELTA * (1 - DELTA) / 200)


def test_a_normal_approximation_would_not_hold() -> None:
    """So the test above can fail."""
    assert violations("rare large losses, few labels", sure)[0] > 0.09


def test_gains_and_rare_losses_are_worth_something() -> None:
    ours = violations("losses grow with the score, gains below", betting)[1]
    binary = violations("losses grow with the score, gains below", clopper_pearson)[1]
    assert ours > binary + 0.05  # the exact binomial sees only losses where gains make up for them


def test_the_exact_binomial_is_the_better_one_for_losses_of_0_and_1() -> None:
    random = np.random.default_rng(0)
    p = [
        [float(method((random.random((400, 1)) < 0.02).astype(float), 0.05, DELTA)[0]) for _ in range(200)]
        for method in (clopper_pearson, betting)
    ]
    assert np.mean(np.array(p[0]) <= DELTA) > np.mean(np.array(p[1]) <= DELTA)


@given(st.integers(0, 2**32 - 1), st.floats(0.005, 0.3), st.sampled_from([0.02, 0.05, 0.2]))
def test_a_larger_alpha_never_raises_a_p_value(seed: int, alpha: float, delta: float) -> None:
    losses = np.random.default_rng(seed).choice([-1.0, 0.0, 0.3, 1.0], (60, 5), p=[0.1, 0.7, 0.1, 0.1])
    for method in METHODS.values():
        assert (method(losses, alpha * 1.1, delta) <= method(losses, alpha, delta) + 1e-12).all()
        found = method(losses, alpha, delta)
        assert ((found >= 0) & (found <= 1)).all()


@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.3])
def test_fewest_is_where_even_no_loss_at_all_begins_to_show(method: str, alpha: float) -> None:
    n = fewest(method, alpha, DELTA)
    assert METHODS[method](np.zeros((n, 1)), alpha, DELTA)[0] <= DELTA
    assert METHODS[method](np.zeros((n - 1, 1)), alpha, DELTA)[0] > DELTA


def test_the_upper_limit_is_where_the_test_turns() -> None:
    losses = np.random.default_rng(0).choice([-1.0, 0.0, 1.0], 500, p=[0.05, 0.85, 0.1])
    for method in METHODS.values():
        limit = upper_limit(method, losses, DELTA)
        assert limit > losses.mean()
        assert (
            method(losses[:, None], limit + 1e-4, DELTA)[0] <= DELTA < method(losses[:, None], limit - 1e-4, DELTA)[0]
        )


def sample(n: int, seed: int = 0, slope: float = 0.5) -> tuple[Losses, Array]:
    """Outcomes that get worse for weak as the score rises, and the scores."""
    random = np.random.default_rng(seed)
    scores = random.random(n)
    gaps = (random.random(n) < slope * scores**2).astype(float)
    losses = Losses(
        queries=[str(row) for row in range(n)], gap=gaps, largest=1.0, unit="score", fingerprint=f"fingerprint {seed}"
    )
    return losses, scores


def bounded(n: int, alpha: float = 0.05, seed: int = 0, **settings: object) -> object:
    losses, scores = sample(n, seed)
    options = {"strong": "s", "weak": "w", "max_quality_loss": alpha, "confidence": 0.95, **settings}
    return bound_loss(losses, scores, **options)  # type: ignore[arg-type]


def test_a_guarantee_says_what_it_is_of() -> None:
    losses, scores = sample(1000)
    found = bound_loss(losses, scores, strong="s", weak="w", max_quality_loss=0.05, confidence=0.95)
    to_weak = scores < found.threshold
    assert found.n == 1000
    assert (found.max_quality_loss, found.delta, found.method, found.unit) == (0.05, 0.05, "betting", "score")
    assert found.strong_share == pytest.approx(1 - to_weak.mean())
    assert found.loss == pytest.approx(np.where(to_weak, losses.gap, 0).mean())
    assert found.loss < found.bound <= 0.05
    assert 0.3 < found.strong_share < 0.6


def test_more_labels_save_more_calls_and_more_confidence_saves_fewer() -> None:
    shares = [np.mean([bounded(n, seed=seed).strong_share for seed in range(4)]) for n in (200, 600, 1800)]  # type: ignore[attr-defined]
    assert shares == sorted(shares, reverse=True)
    assert bounded(800, confidence=0.99).strong_share > bounded(800, confidence=0.8).strong_share  # type: ignore[attr-defined]


def test_a_finer_grid_does_not_break_it_and_ties_go_together() -> None:
    losses, scores = sample(600)
    lumps = np.floor(scores * 4) / 4
    found = bound_loss(losses, lumps, strong="s", weak="w", max_quality_loss=0.05, confidence=0.95)
    assert found.threshold in {0.25, 0.5, 0.75}
    to_weak = lumps < found.threshold
    assert found.strong_share == pytest.approx(1 - to_weak.mean())


@pytest.mark.parametrize("alpha", [0.01, 0.02])
def test_too_few_labels_are_refused_with_how_many_more_would_do_and_those_do(alpha: float) -> None:
    with pytest.raises(InputError, match=r"some [\d,]+ more would do \([\d,]+ in all") as refused:
        bounded(80, alpha)
    needed = int(str(refused.value).split("(")[1].split(" in all")[0].replace(",", ""))
    assert 100 < needed < 3000
    found = 0
    for seed in range(30):
        losses, scores = sample(needed, 100 + seed)
        threshold = lowest_cost_threshold(scores, losses.gap, alpha, DELTA, betting)
        found += bool((scores < threshold).mean() >= LEAST_SAVED)
    assert found >= 0.7 * 30
    losses, scores = sample(needed // 3, 7)
    assert (scores < lowest_cost_threshold(scores, losses.gap, alpha, DELTA, betting)).mean() < LEAST_SAVED


def test_where_no_number_of_labels_would_do_it_says_so() -> None:
    scores = np.repeat([0.2, 0.8], 150)
    losses = Losses(queries=[""] * 300, gap=np.tile([1.0, 0.0, 0.0], 100), largest=1.0, unit="score", fingerprint="")
    assert labels_needed(scores, losses.gap, 0.01, DELTA, "betting", trials=4) is None
    with pytest.raises(InputError, match="allow a larger loss, or train a better router"):
        bound_loss(losses, scores, strong="s", weak="w", max_quality_loss=0.01, confidence=0.95)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_quality_loss": 0.0}, "max_quality_loss is 0"),
        ({"max_quality_loss": 1.0}, "between 0 and 1"),
        ({"max_quality_loss": float("nan")}, "max_quality_loss is nan"),
        ({"confidence": 1.0}, "confidence is 1"),
        ({"confidence": 0.05}, r"such as 0\.95"),
        ({"method": "hope"}, "one of .'betting', 'clopper-pearson'."),
    ],
)
def test_settings_out_of_range_are_input_errors(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        bounded(500, **settings)


def test_new_outcomes_contradict_a_guarantee_that_no_longer_holds() -> None:
    found = bounded(800)
    guarantee = found.as_dict()  # type: ignore[attr-defined]
    assert contradiction(guarantee, *sample(800, 1)) > 0.05
    assert contradiction(guarantee, *sample(800, 1, slope=4.0)) < 0.001
    rejected = sum(contradiction(guarantee, *sample(300, seed)) <= 0.05 for seed in range(100, 300))
    assert rejected <= 200 * 0.05


def performances(rows: list[tuple[str, float, float]]) -> list[PerformanceRecord]:
    return [
        PerformanceRecord(query, model, score)
        for query, strong, weak in rows
        for model, score in (("s", strong), ("w", weak))
    ]


def test_performance_outcomes_are_differences_averaged_over_each_prompt() -> None:
    found = losses_of(performances([("x", 1.0, 0.25), ("y", 0.0, 1.0), ("X ", 1.0, 1.0)]), "s", "w")
    assert dict(zip(found.queries, found.gap.tolist(), strict=True)) == {"x": 0.375, "y": -1.0}
    assert (found.largest, found.unit, len(found)) == (1.0, "score", 2)


def test_preferences_are_losses_of_win_rate_whichever_model_stands_first() -> None:
    records = [
        PreferenceRecord("won", "s", "w", 1.0),
        PreferenceRecord("lost", "w", "s", 1.0),
        PreferenceRecord("tie", "s", "w", 0.5),
        PreferenceRecord("judged twice", "s", "w", 1.0),
        PreferenceRecord("judged twice", "w", "s", 0.5),
        PreferenceRecord("others", "s", "other", 1.0),
    ]
    found = losses_of(records, "s", "w")
    expected = {"won": 0.5, "lost": -0.5, "tie": 0.0, "judged twice": 0.25}
    assert dict(zip(found.queries, found.gap.tolist(), strict=True)) == expected
    assert (found.largest, found.unit) == (0.5, "win rate")


def test_preferences_are_bounded_by_half_a_win() -> None:
    """The same losses as scores and as preferences: the same threshold, at half the loss."""
    losses, scores = sample(800)
    halved = replace(losses, gap=losses.gap / 2, largest=0.5, unit="win rate")
    whole = bound_loss(losses, scores, strong="s", weak="w", max_quality_loss=0.04, confidence=0.95)
    half = bound_loss(halved, scores, strong="s", weak="w", max_quality_loss=0.02, confidence=0.95)
    assert half.threshold == whole.threshold
    assert (half.loss, half.bound) == pytest.approx((whole.loss / 2, whole.bound / 2))


def test_the_order_of_the_records_changes_nothing() -> None:
    rows = [(f"q{i}", float(i % 3 > 0), float(i % 2)) for i in range(50)]
    forth, back = (losses_of(performances(order), "s", "w") for order in (rows, rows[::-1]))
    assert forth.queries == back.queries
    assert forth.fingerprint == back.fingerprint
    assert forth.queries != sorted(forth.queries)
    changed = losses_of(performances([("q0", 0.5, 0.0), *rows[1:]]), "s", "w")
    assert changed.fingerprint != forth.fingerprint


def test_no_outcome_of_both_models_is_an_input_error() -> None:
    with pytest.raises(InputError, match="no preference between them"):
        losses_of([PerformanceRecord("x", "s", 1.0)], "s", "w")
