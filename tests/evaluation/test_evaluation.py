"""The evaluation: each metric against its definition, the baselines, the pool, and the report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from routelearn.data.records import PerformanceRecord, Record
from routelearn.data.sample import POOL, Sample
from routelearn.evaluation.baselines import best_by_task, learned_baselines
from routelearn.evaluation.evaluate import evaluate
from routelearn.evaluation.pool import average_quality, evaluate_pool, hull, routed
from routelearn.evaluation.report import html_page, write_report
from routelearn.evaluation.results import Report
from routelearn.policies.cost import query_costs
from routelearn.routers.base import Router
from routelearn.routers.decision import Floats, Model
from routelearn.routers.errors import InputError
from routelearn.routers.learned import LearnedRouter
from routelearn.training.fit.metrics import Curve, auroc, expected_calibration_error, reliability


class Fixed(Router):
    """Knows the quality of two models on each query by its number."""

    def __init__(self, quality: dict[str, tuple[float, float]]) -> None:
        super().__init__([Model("s", 10, 30), Model("w", 1, 2)], "s", "w")
        self._quality = quality

    def quality(self, queries: object) -> Floats:
        return np.asarray([self._quality[str(query)] for query in queries], np.float32).reshape(-1, 2)  # type: ignore[attr-defined]


def scored(table: dict[str, tuple[float, float]], **more: object) -> list[Record]:
    return [
        PerformanceRecord(query, name, score, **more)  # type: ignore[arg-type]
        for query, scores in table.items()
        for name, score in zip("sw", scores, strict=True)
    ]


@pytest.fixture(scope="module")
def report(router: LearnedRouter, sample: Sample, tested: list[PerformanceRecord]) -> Report:
    training = [record for record in sample.performances if record.split != "test"]
    return evaluate({"mf": router}, tested, training=training, prices=POOL, bootstrap=40)


def test_every_baseline_is_there(report: Report) -> None:
    names = [result.router for result in report.results]
    assert names[0] == "mf"
    assert names[-1] == "oracle"
    assert {"random", "always-weak", "always-strong", "best single by task", "rules", "kNN", "k-means"} < set(names)
    assert {result.role for result in report.results} == {"router", "baseline", "bound"}
    assert not report.notes


def test_an_unknown_name_is_refused_with_the_names_there_are(report: Report) -> None:
    with pytest.raises(KeyError, match=r"no result of 'fm'; expected one of \['mf', "):
        report["fm"]


def test_no_router_is_an_input_error(tested: list[PerformanceRecord]) -> None:
    with pytest.raises(InputError, match="no router was given"):
        evaluate({}, tested)


def test_every_figure_has_an_interval_around_it(report: Report) -> None:
    for result in report.results:
        for key, value in result.values.items():
            low, high = result.intervals[key]
            assert low <= high
            if key in {"apgr", "auroc", "quality"}:
                assert low - 0.02 <= value <= high + 0.02


def test_a_perfect_router_needs_strong_only_where_it_is_better() -> None:
    random = np.random.default_rng(0)
    table = {f"q{i}": (1.0, float(random.random() < 0.7)) for i in range(400)}
    # Untied scores: thresholds are quantiles.
    quality = {q: (0.9, 0.1 + 0.7 * w + 0.1 * random.random()) for q, (_, w) in table.items()}
    found = evaluate({"r": Fixed(quality)}, scored(table), bootstrap=20)
    values = found["r"].values
    needed = np.mean([w == 0 for _, w in table.values()])
    assert values["auroc"] == 1
    assert (found["always-strong"].values["strong_share"], found["always-strong"].values["quality"]) == (1, 1)
    assert found["always-weak"].values["quality"] == pytest.approx(1 - needed)
    assert found.strong_quality == 1
    assert values["share99"] <= needed + 0.1


def test_costs_are_those_of_the_shares() -> None:
    table = {f"query {i:04}": (1.0, float(i % 2)) for i in range(200)}
    found = evaluate(
        {"r": Fixed({q: (0.9, 0.1 + 0.7 * w) for q, (_, w) in table.items()})},
        scored(table),
        prices=[Model("s", 10, 30), Model("w", 1, 2)],
        output_tokens=100,
        bootstrap=5,
    )
    strong, weak = (3 * i + 100 * o for i, o in ((10, 30), (1, 2)))  # USD a million queries of 10 characters
    share = found["r"].values["share99"]
    assert found["r"].values["cost99"] == pytest.approx((share * strong + (1 - share) * weak) / 1000)


def test_paired_differences_are_of_the_same_resamples() -> None:
    table = {f"q{i}": (1.0, float(i % 2)) for i in range(100)}
    quality = {q: (0.9, 0.1 + 0.7 * w) for q, (_, w) in table.items()}
    found = evaluate({"a": Fixed(quality), "b": Fixed(quality)}, scored(table), bootstrap=30)
    assert [(d.router, d.other, d.apgr, d.interval) for d in found.differences] == [("a", "b", 0, (0, 0))]


def test_mt_bench_routes_on_the_first_turn_and_counts_every_turn() -> None:
    first = ({"role": "user", "content": "one"},)
    second = (*first, {"role": "assistant", "content": "x"}, {"role": "user", "content": "two"})
    records: list[Record] = [
        PerformanceRecord(query, name, score)
        for query, scores in ((first, (0.9, 0.5)), (second, (1.0, 0.3)))
        for name, score in zip("sw", scores, strict=True)
    ]
    seen: list[object] = []

    class Spy(Fixed):
        def quality(self, queries: object) -> Floats:
            seen.extend(queries)  # type: ignore[arg-type]
            return np.full((len(queries), 2), 0.5, np.float32)  # type: ignore[arg-type]

    found = evaluate({"r": Spy({})}, records, first_turn=True, bootstrap=5)
    assert (found.queries, found.prompts) == (2, 1)
    assert set(map(str, seen)) == {str(first)}
    assert found.strong_quality == pytest.approx(0.95)


def test_best_by_task_asks_the_training_records() -> None:
    training = scored({"a": (1.0, 0.0)}, task="hard") + scored({"b": (0.0, 1.0)}, task="odd")
    choice = best_by_task(training, ["hard", "odd", "new"], "s", "w")
    assert choice is not None
    assert choice.tolist() == [1, 0, 1]
    assert best_by_task(scored({"a": (1.0, 0.0)}), ["hard"], "s", "w") is None


def test_the_learned_baselines_beat_random_on_the_sample(report: Report) -> None:
    assert report["kNN"].values["apgr"] > report["random"].values["apgr"]
    assert report["k-means"].values["apgr"] > report["random"].values["apgr"]


def test_baselines_over_preferences(sample: Sample) -> None:
    found = learned_baselines(sample.preferences, [model.name for model in POOL], "sim-max", "sim-small")
    for router in found.values():
        assert router.score(["Prove it."]).shape == (1,)
        assert router.quality([]).shape == (0, 4)


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=60))
def test_auroc_is_scikit_learns(rows: list[tuple[int, bool]]) -> None:
    scores, positive = np.array([s for s, _ in rows], float), np.array([p for _, p in rows])
    if positive.all() or not positive.any():
        assert np.isnan(auroc(scores, positive))
    else:
        assert auroc(scores, positive) == pytest.approx(roc_auc_score(positive, scores))


def test_a_calibrated_score_has_no_calibration_error() -> None:
    predicted = np.repeat([0.2, 0.6], 500)
    outcome = np.concatenate([np.repeat([1.0, 0.0], [100, 400]), np.repeat([1.0, 0.0], [300, 200])])
    assert expected_calibration_error(predicted, outcome, bins=2) == pytest.approx(0)
    assert expected_calibration_error(predicted + 0.1, outcome, bins=2) == pytest.approx(0.1)
    for point, expected in zip(reliability(predicted, outcome, bins=2), (0.2, 0.6), strict=True):
        assert point == (pytest.approx(expected), pytest.approx(expected), 500)


def test_the_share_for_a_quality_is_interpolated() -> None:
    curve = Curve(share=np.array([0, 0.5, 1]), quality=np.array([0.4, 0.8, 1.0]), weak=0.4, strong=1.0)
    assert curve.share_for(0.6) == pytest.approx(0.25)
    assert curve.share_for(0.9) == pytest.approx(0.75)
    assert curve.share_for(0.1) == 0
    assert curve.share_for(1.1) == 1


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 1)), min_size=1, max_size=30))
def test_the_hull_rises_bends_down_and_lies_above_every_point(points: list[tuple[float, float]]) -> None:
    cost, quality = (np.array(column) for column in zip(*points, strict=True))
    x, y = hull(cost, quality)
    assert (np.diff(x) > 0).all()
    assert (np.diff(y) > 0).all()
    slopes = np.diff(y) / np.diff(x)
    assert (slopes[1:] <= slopes[:-1] * (1 + 1e-6) + 1e-9).all()
    for c, q in points:
        assert np.interp(c, x, y) >= q - 1e-6 * max(1, abs(q)) or c < x[0]


def test_aiq_is_the_mean_height_over_the_costs() -> None:
    assert average_quality(np.array([1.0, 3.0]), np.array([0.5, 0.9]), 1, 3) == pytest.approx(0.7)
    assert average_quality(np.array([1.0, 2.0]), np.array([0.5, 0.9]), 1, 3) == pytest.approx(0.8)
    assert average_quality(np.array([1.0]), np.array([0.5]), 1, 1) == pytest.approx(0.5)


def test_trades_run_from_the_best_model_to_the_cheapest() -> None:
    predicted, cost = np.array([[0.9, 0.8, 0.1]]), np.array([[3.0, 1.0, 0.1]])
    assert routed(predicted, cost, np.array([0.0, 0.2, 100.0]))[:, 0].tolist() == [0, 1, 2]


def test_a_pool_of_42_models_is_evaluated() -> None:
    random = np.random.default_rng(0)
    pool = [Model(f"m{i}", 0.1 * (i + 1), 0.3 * (i + 1)) for i in range(42)]
    scores = (random.random((300, 42)) < np.linspace(0.3, 0.8, 42)).astype(float)
    queries = ["q" * (10 + i) for i in range(300)]
    predictions = {"kNN": np.tile(scores.mean(axis=0), (300, 1)), "clairvoyant": scores * 0.9}
    found = evaluate_pool(predictions, queries, scores, pool, np.arange(300), bootstrap=20)
    results = {result.router: result for result in found.results}
    assert results["oracle"].aiq == pytest.approx(results["clairvoyant"].aiq, abs=1e-3)
    assert results["clairvoyant"].difference_interval[0] > 0  # type: ignore[index]
    assert results["kNN"].aiq == pytest.approx(results["single models"].aiq, abs=1e-6)
    assert found.best_single == f"m{int(scores.mean(axis=0).argmax())}"
    assert query_costs(pool[:1], ["abcd"], 10)[0, 0] == pytest.approx((0.1 + 3.0) / 1e6)


def test_the_sample_has_a_pool_report(report: Report) -> None:
    assert report.pool is not None
    assert {result.router for result in report.pool.results} == {
        "mf",
        "ranking",
        "kNN",
        "k-means",
        "single models",
        "oracle",
    }


def test_the_report_is_written_and_stands_alone(report: Report, tmp_path: Path) -> None:
    write_report(report, tmp_path / "r")
    content = json.loads((tmp_path / "r" / "report.json").read_text())
    assert content["results"][0]["values"]["apgr"] == report["mf"].values["apgr"]
    page = (tmp_path / "r" / "report.html").read_text()
    assert page.count("<svg") == 3
    assert page.index("verage performance gap recovered (APGR): 0.5 is random, 1 is perfect") < page.index("<th>APGR")
    for outside in ("src=", "<script", "<link", "@import"):
        assert outside not in page


def test_names_cannot_break_the_page() -> None:
    table = {f"q{i}": (1.0, float(i % 2)) for i in range(60)}
    router = Fixed({q: (0.9, 0.1 + 0.7 * w) for q, (_, w) in table.items()})
    page = html_page(evaluate({"<script>alert(1)</script>": router}, scored(table, task="<b>"), bootstrap=5))
    assert "<script" not in page
    assert "<td><b>" not in page
