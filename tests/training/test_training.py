from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import tiny_config
from sklearn.linear_model import LogisticRegression

from routelearn.data.records import PerformanceRecord, PreferenceRecord, Record
from routelearn.data.sample import POOL, Sample
from routelearn.evaluation.evaluate import evaluate, preference_losses
from routelearn.routers.base import sigmoid
from routelearn.routers.errors import ExportError, InputError
from routelearn.routers.learned import LearnedRouter
from routelearn.routers.loading import load
from routelearn.routers.query import Query
from routelearn.training.examples import Outcomes, examples_of, validation_folds
from routelearn.training.export.gate import check_parity
from routelearn.training.fit.calibration import calibrate
from routelearn.training.fit.factorization import Factors, Problem, fit
from routelearn.training.matrix_factorization.config import MatrixFactorizationConfig
from routelearn.training.matrix_factorization.train import check_matrix_factorization, train_matrix_factorization

#: Records that a router can be trained on.
SOME = [PreferenceRecord(f"q{i}", "a", "b", i % 2) for i in range(50)]


def outcomes(model: np.ndarray, target: np.ndarray) -> Outcomes:
    k = len(target)
    return Outcomes(np.arange(k), model, target.astype(np.float32), np.ones(k, np.float32), np.zeros(k, np.int64))


def test_the_router_beats_the_global_ranking_and_random(router: LearnedRouter, tested: list[PerformanceRecord]) -> None:
    metrics = router.manifest.training["metrics"]
    assert metrics["log loss"] < metrics["log loss of the global ranking"] - 0.02
    report = {result.router: result for result in evaluate({"mf": router}, tested, bootstrap=50).results}
    assert report["mf"].values["apgr"] > report["random"].values["apgr"] + 0.04
    assert report["oracle"].values["apgr"] > report["mf"].values["apgr"]


def test_scores_are_calibrated_win_rates(router: LearnedRouter, sample: Sample) -> None:
    rows = [i for i, split in enumerate(sample.splits) if split == "test"]
    names = [model.name for model in POOL]
    truth = sample.expected_quality[rows]
    strong, weak = truth[:, names.index("sim-max")], truth[:, names.index("sim-small")]
    scores = router.score([sample.queries[i] for i in rows])
    assert abs(scores.mean() - (0.5 + (strong - weak).mean() / 2)) < 0.03


def test_class_imbalance_does_not_move_the_mean_score(tiny_encoder: Path, sample: Sample, tmp_path: Path) -> None:
    """An easy pool: 95 % of the answers are good. The score must stay the expected win rate, near one half."""
    random = np.random.default_rng(0)
    records = [
        replace(record, score=float(random.random() < (0.97 if record.model == "sim-max" else 0.93)))
        for record in sample.performances
        if record.model in {"sim-max", "sim-small"}
    ]
    router = load(train_matrix_factorization(records, tmp_path / "r", tiny_config(tiny_encoder, path_steps=3)))
    assert abs(router.score(sample.queries).mean() - 0.52) < 0.02


def test_preferences_alone_give_bradley_terry_win_rates(tiny_encoder: Path, sample: Sample, tmp_path: Path) -> None:
    router = load(train_matrix_factorization(sample.preferences, tmp_path / "r", tiny_config(tiny_encoder)))
    assert router.link == "bradley-terry"
    test = [record for record in sample.preferences if record.split == "test"]
    assert preference_losses(router, test).mean() < np.log(2) - 0.05


def test_preferences_and_performances_are_learned_together(tiny_encoder: Path, sample: Sample, tmp_path: Path) -> None:
    few = [record for record in sample.performances if record.model in {"sim-max", "sim-small"}][:400]
    records: list[Record] = [*few, *sample.preferences]  # one source, so that the whole pool is exported
    router = load(train_matrix_factorization(records, tmp_path / "r", tiny_config(tiny_encoder)))
    training = router.manifest.training
    assert training["preference_records"] > 0
    assert training["performance_records"] > 0
    assert len(router.models) == 4


@pytest.mark.slow
def test_fine_tuning_the_table_trains_and_exports(tiny_encoder: Path, sample: Sample, tmp_path: Path) -> None:
    config = tiny_config(tiny_encoder, finetune_epochs=2, path_steps=4)
    router = load(train_matrix_factorization(sample.performances, tmp_path / "r", config))
    assert router.manifest.training["encoder_fingerprint"].endswith("+finetuned")
    metrics = router.manifest.training["metrics"]
    assert metrics["log loss"] < metrics["log loss of the global ranking"]


def test_the_fit_starts_at_the_global_ranking() -> None:
    """With an infinite penalty the biases are the query-independent Bradley-Terry fit, as scikit-learn finds it."""
    random = np.random.default_rng(0)
    pairs = np.array([random.choice(4, 2, replace=False) for _ in range(600)])
    strength = np.array([1.0, 0.2, -0.4, -0.8])
    wins = (random.random(600) < 1 / (1 + np.exp(strength[pairs[:, 1]] - strength[pairs[:, 0]]))).astype(float)
    problem = Problem(np.zeros((600, 3)), [outcomes(pairs, wins)], 4)
    fitted = fit(problem, Factors.start(3, 4, 2, 1, 0), l2=float("inf"), bias_l2=2.0)
    design = np.zeros((600, 4))
    design[np.arange(600), pairs[:, 0]], design[np.arange(600), pairs[:, 1]] = 1, -1
    reference = LogisticRegression(C=0.5, fit_intercept=False, tol=1e-10, max_iter=1000).fit(design, wins).coef_[0]
    assert np.abs((fitted.bias - fitted.bias.mean()) - (reference - reference.mean())).max() < 1e-4


def test_ties_count_one_half() -> None:
    pairs = np.array([[0, 1]] * 40)
    target = np.array([1.0] * 10 + [0.5] * 30)
    fitted = fit(
        Problem(np.zeros((40, 1)), [outcomes(pairs, target)], 2),
        Factors.start(1, 2, 1, 1, 0),
        l2=float("inf"),
        bias_l2=1e-6,
    )
    rate = sigmoid(fitted.bias[0] - fitted.bias[1])
    assert float(rate) == pytest.approx(0.625, abs=1e-3)


@pytest.mark.parametrize(
    ("slope", "intercept", "method"), [(1.0, 0.0, "none"), (0.4, 0.0, "temperature"), (1.0, 1.5, "platt")]
)
def test_the_calibration_that_is_needed_is_chosen(slope: float, intercept: float, method: str) -> None:
    random = np.random.default_rng(1)
    true = random.normal(0, 2, 4000)
    wins = (random.random(4000) < 1 / (1 + np.exp(-true))).astype(float)
    utilities = ((true - intercept) / slope).reshape(-1, 1)
    found = calibrate(utilities, [outcomes(np.zeros((4000, 1), np.int64), wins)], 0)
    assert found.method == method
    assert found.slope == pytest.approx(slope, rel=0.15)
    assert found.intercept == pytest.approx(intercept, abs=0.2)


def test_a_prompt_never_stands_on_both_sides_of_a_fold(sample: Sample) -> None:
    doubled = [replace(record, split=None) for record in sample.performances[:400]]
    shouted = [replace(r, query=r.query.upper()) for r in doubled if isinstance(r.query, str)]
    examples = examples_of([*doubled, *shouted])
    folds = validation_folds(examples, 5, 0)
    assert np.array_equal(sum(fold.astype(int) for fold in folds), np.ones(len(examples.queries)))
    for fold in folds:
        inside = {key for key, held in zip(examples.keys, fold, strict=True) if held}
        outside = {key for key, held in zip(examples.keys, fold, strict=True) if not held}
        assert not inside & outside


def test_a_router_that_learned_little_says_so(
    tiny_encoder: Path, sample: Sample, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    random = np.random.default_rng(0)
    records = [replace(record, preference=float(random.integers(2))) for record in sample.preferences]
    train_matrix_factorization(records, tmp_path / "r", tiny_config(tiny_encoder))
    assert "the queries tell little of who wins" in caplog.text


def test_odd_prompts_are_trained_on(tiny_encoder: Path, sample: Sample, tmp_path: Path) -> None:
    odd = ["", "\x00", "\ud800", "x" * 50_000, "🙂"]
    records = [
        PerformanceRecord(query, name, i % 2) for i, query in enumerate(odd) for name in ("sim-max", "sim-small")
    ]
    path = train_matrix_factorization([*sample.performances[:800], *records], tmp_path / "r", tiny_config(tiny_encoder))
    assert np.isfinite(load(path).score(odd)).all()


def test_only_marks_of_the_first_source_choose_the_validation(sample: Sample) -> None:
    own = [replace(record, split=None, source="own") for record in sample.performances[:400]]
    other = [replace(record, split="val", source="other") for record in sample.performances[400:800]]
    assert len(validation_folds(examples_of([*own, *other]), 5, 0)) == 5
    assert len(validation_folds(examples_of([*other, *own]), 5, 0)) == 1


@pytest.mark.slow
def test_another_source_may_rank_the_models_otherwise(tiny_encoder: Path, sample: Sample, tmp_path: Path) -> None:
    """A second judge who turns every preference: the router keeps the first one's ranking."""
    own = [replace(record, source="own") for record in sample.preferences]
    turned = [
        replace(record, preference=1 - record.preference, source="other", split="train", query=f"{i}")
        for i, record in enumerate(sample.preferences)
        for _ in range(2)
    ]
    router = load(train_matrix_factorization([*own, *turned], tmp_path / "r", tiny_config(tiny_encoder, path_steps=3)))
    assert router.score(sample.queries).mean() > 0.6


def test_models_of_other_sources_only_are_not_exported(tiny_encoder: Path, sample: Sample, tmp_path: Path) -> None:
    own = [r for r in sample.performances if r.model in {"sim-max", "sim-small"}]
    other = [replace(r, source="other", split="train", query=f"{i}") for i, r in enumerate(sample.performances[:400])]
    router = load(train_matrix_factorization([*own, *other], tmp_path / "r", tiny_config(tiny_encoder, path_steps=3)))
    assert router.models == ("sim-max", "sim-small")
    with pytest.raises(InputError, match="no record mentions 'sim-nano'"):
        train_matrix_factorization([*own, *other], tmp_path / "s", tiny_config(tiny_encoder, weak="sim-nano"))


def test_rows_marked_test_are_left_out_and_val_validates(router: LearnedRouter, sample: Sample) -> None:
    training = router.manifest.training
    assert training["records"] == sum(record.split != "test" for record in sample.performances)
    assert training["metrics"]["held-out queries"] == sample.splits.count("val")


@pytest.mark.parametrize(
    ("records", "settings", "message"),
    [
        ([], {}, "no records"),
        ([PerformanceRecord(f"q{i}", "a", 1.0) for i in range(50)], {}, "score 1"),
        ([PerformanceRecord(f"q{i}", "a", i % 2) for i in range(50)], {}, "expected two or more"),
        ([PreferenceRecord(f"q{i}", "a", "b", 1.0) for i in range(50)], {}, "'a' wins every"),
        ([PreferenceRecord(f"q{i}", "a", "b", 0.5) for i in range(50)], {}, "every preference record is a tie"),
        ([PreferenceRecord(f"q{i}", "a", "b", i % 2) for i in range(50)], {"strong": "c"}, "no record mentions 'c'"),
        (
            [PreferenceRecord(f"q{i}", "a", "b", i % 2) for i in range(50)],
            {"models": ("a", "z")},
            r"no record mentions \['z'\]",
        ),
        ([PreferenceRecord(f"q{i}", "a", "bc"[i % 2], i % 2) for i in range(50)], {}, "name the strong and the weak"),
        ([PreferenceRecord(f"q{i % 4}", "a", "b", i % 2) for i in range(50)], {}, "too few"),
        ([replace(record, split="test") for record in SOME], {}, "all are marked 'test'"),
        (SOME, {"encoder": "no/such/encoder"}, "no encoder folder"),
        (SOME, {"dimensions": 32}, "dimensions is 32, .*; expected 64"),
        (
            [PreferenceRecord("only", "a", "b", 1.0, source="own"), *(replace(r, source="other") for r in SOME)],
            {"finetune_epochs": 1, "seed": 1},
            "the primary source, 'own', has too few prompts to hold any out",
        ),
    ],
)
def test_what_cannot_be_learned_from_is_a_clear_error(
    records: list[Record], settings: dict[str, object], message: str, tiny_encoder: Path, tmp_path: Path
) -> None:
    config = MatrixFactorizationConfig(**{"encoder": str(tiny_encoder), **settings})  # type: ignore[arg-type]
    assert_refused_by_both(records, tmp_path / "r", config, message)
    assert not (tmp_path / "r").exists()


def assert_refused_by_both(records: list[Record], out: Path, config: MatrixFactorizationConfig, message: str) -> None:
    """What training refuses, the check of a dry run refuses with the same words, and writes nothing."""
    before = sorted(out.parent.rglob("*")) if out.parent.is_dir() else []
    with pytest.raises(InputError, match=message) as dry:
        check_matrix_factorization(records, out, config)
    assert before == (sorted(out.parent.rglob("*")) if out.parent.is_dir() else [])
    with pytest.raises(InputError) as trained:
        train_matrix_factorization(records, out, config)
    assert str(dry.value) == str(trained.value)


def test_a_dry_run_refuses_a_place_that_training_cannot_write(
    sample: Sample, tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records, config = sample.performances[:800], tiny_config(tiny_encoder)
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years of work")
    (tmp_path / "logged.training").write_text("")
    assert_refused_by_both(records, tmp_path / "file", config, "is not a bundle")
    assert_refused_by_both(records, tmp_path / "full", config, "is not a bundle")
    assert_refused_by_both(records, tmp_path / "file" / "r", config, "expected a folder")
    assert_refused_by_both(records, tmp_path / "logged", config, "expected a folder for the log")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert_refused_by_both(records, tmp_path / "locked", config, "expected a writable folder")


def test_a_dry_run_that_passes_tells_what_would_be_learned_from_and_writes_nothing(
    sample: Sample, tiny_encoder: Path, tmp_path: Path
) -> None:
    plan = check_matrix_factorization(sample.performances, tmp_path / "r", tiny_config(tiny_encoder))
    assert plan.examples.models == tuple(sorted(model.name for model in POOL))
    assert sum(fold.sum() for fold in plan.folds) == sample.splits.count("val")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "settings",
    [{"rank": 0}, {"l2": -1.0}, {"folds": 1}, {"strong_share": 2.0}, {"link": "x"}, {"strong": "a", "weak": "a"}],
)
def test_a_setting_out_of_range_is_named(settings: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(settings))):
        MatrixFactorizationConfig(**settings)  # type: ignore[arg-type]


def test_the_log_and_the_curve_are_written(bundle: Path) -> None:
    folder = bundle.with_name(bundle.name + ".training")
    steps = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert {step["phase"] for step in steps} == {"ranking", "factors", "path alone", "tasks", "done"}
    assert (folder / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_the_config_is_saved_in_the_bundle(router: LearnedRouter) -> None:
    config = router.manifest.training["config"]
    assert config["strong"] == "sim-max"
    assert config["l2"] > 0


def test_a_graph_that_differs_from_the_network_is_refused(router: LearnedRouter) -> None:
    def other(queries: Sequence[Query]) -> np.ndarray:
        return router.quality(queries) + np.float32(2e-4)

    with pytest.raises(ExportError, match="differs from the network"):
        check_parity(other, router, ["a", "b"])


def test_the_bundle_records_its_parity_with_torch(router: LearnedRouter) -> None:
    assert router.manifest.training["parity_texts"] > 500
    assert router.manifest.training["parity_batched"] <= 1e-4
    assert router.manifest.training["parity_single"] <= 1e-4
