"""What `train` says at its end, in sentences."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from routelearn.routers.bundle import VERIFIER, Manifest, Truncation, read_manifest
from routelearn.routers.decision import Model
from routelearn.training.summary import LEAST_JUDGED, no_better, summary

OLD_BUNDLES = Path(__file__).parents[1] / "bundles"
VERIFIER_MANIFEST = Manifest(
    kind=VERIFIER,
    pool=(Model("small"), Model("large")),
    strong="max",
    weak="small",
    link="difference",
    truncation=Truncation(),
    calibration={},
    threshold=0.5,
    threshold_table=((0.0, 0.0), (0.25, 0.4), (0.35, 0.6), (1.0, 1.1)),
    training={
        "metrics": {"held-out answers": 400, "log loss": 0.5, "log loss of the base rate": 0.6931, "AUROC": 0.8123}
    },
)


@pytest.mark.parametrize("name", ["version-2", "version-3", "version-3-similarity"])
def test_a_router_says_its_models_its_threshold_its_gain_and_what_to_type(name: str) -> None:
    manifest = read_manifest(OLD_BUNDLES / name)
    pair, threshold, gain, _, command = summary(manifest, "out/router")
    assert pair == "The strong model is sim-max, the weak model is sim-small."
    assert threshold == (
        f"A query whose score is {manifest.threshold:.4f} or more goes to sim-max: 50% of the held-out queries."
    )
    metrics = manifest.training["metrics"]
    if name != "version-3-similarity":
        assert gain.startswith("The router predicts which model wins better than one ranking for all queries does: ")
    assert f"{metrics['log loss']:.4f}" in gain
    assert f"{metrics['log loss of the global ranking']:.4f}" in gain
    assert command == "routelearn route out/router 'Prove that the square root of 2 is irrational.'"


def test_a_pair_that_training_took_is_named_as_such() -> None:
    manifest = read_manifest(OLD_BUNDLES / "version-3")
    assert "taken from the records: name others with --strong and --weak" in summary(manifest, "r", named_pair=False)[0]


def test_a_router_that_learned_little_says_so() -> None:
    manifest = read_manifest(OLD_BUNDLES / "version-3")
    metrics = {**manifest.training["metrics"], "log loss": 0.56, "log loss of the global ranking": 0.5608}
    gain = summary(replace(manifest, training={**manifest.training, "metrics": metrics}), "r")[2]
    assert gain.startswith("The router learned little from the queries: ")
    assert gain.endswith("Expect it to choose about as well as one model for all.")


def test_rows_marked_test_make_evaluate_the_next_command() -> None:
    manifest = read_manifest(OLD_BUNDLES / "version-3")
    command = summary(manifest, "r", data=["a b.parquet", "c.csv@0.2"], has_test_rows=True)[-1]
    assert command == (
        "routelearn evaluate r --data 'a b.parquet' --data c.csv --split test --train 'a b.parquet' --train c.csv"
    )


def test_a_verifier_says_whose_answers_it_judges_and_what_it_is_worth() -> None:
    lines = summary(VERIFIER_MANIFEST, "v", data=["answers.parquet"])
    assert lines == [
        "The verifier judges the answers of small.",
        "An answer whose confidence is below 0.5000 is escalated, and max answers instead: "
        "30% of the held-out answers.",
        "On 400 held-out answers its log loss is 0.5000; this is less than the 0.6931 of giving every answer the same "
        "confidence. A good answer gets a higher confidence than a bad one in 81.2% of the pairs.",
        "To see what a cascade with it costs, on records that it has not seen, type:",
        "routelearn cascade-plan --verifier v --data TEST.parquet --prices PRICES.toml --train answers.parquet",
    ]
    assert summary(replace(VERIFIER_MANIFEST, strong="", weak=""), "v")[0] == (
        "The verifier judges answers of small, large."
    )


def with_metrics(manifest: Manifest, **metrics: float) -> Manifest:
    changed = {**manifest.training["metrics"], **{name.replace("_", " "): value for name, value in metrics.items()}}
    return replace(manifest, training={**manifest.training, "metrics": changed})


@pytest.mark.parametrize(
    ("outcomes", "loss", "useless"),
    [
        (LEAST_JUDGED, 0.70, True),
        (LEAST_JUDGED, 0.6999, True),  # 0.04 nats over all outcomes: within chance
        (LEAST_JUDGED, 0.71, True),
        (LEAST_JUDGED - 1, 0.71, False),  # too few to tell
        (LEAST_JUDGED, 0.68, False),
        (100_000, 0.6998, False),
    ],
)
def test_a_router_is_no_better_than_none_only_where_enough_outcomes_say_so(
    outcomes: int, loss: float, useless: bool
) -> None:
    changes = {"held-out outcomes": outcomes, "log loss": loss, "log loss of the global ranking": 0.70}
    said = no_better(with_metrics(read_manifest(OLD_BUNDLES / "version-3"), **changes))
    assert (said is not None) == useless
    if said is not None:
        assert "Do not route with it." in said and "give more records" in said


@pytest.mark.parametrize(
    ("answers", "auroc", "loss", "useless"),
    [
        (400, 0.50, 0.69, True),
        (400, 0.55, 0.69, True),  # the interval reaches below one half
        (4000, 0.55, 0.69, False),
        (400, 0.70, 0.60, False),
        (400, 0.70, 0.70, True),  # worse than the base rate
        (399, 0.40, 0.80, False),  # too few to tell
    ],
)
def test_a_verifier_is_no_better_than_none_only_where_enough_answers_say_so(
    answers: int, auroc: float, loss: float, useless: bool
) -> None:
    changes = {"held-out answers": answers, "good enough": 0.5, "AUROC": auroc, "log loss": loss}
    said = no_better(with_metrics(VERIFIER_MANIFEST, **changes))
    assert (said is not None) == useless
    if said is not None:
        assert "Do not run a cascade with it." in said and "give more answers" in said
