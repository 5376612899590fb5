"""`routelearn calibrate` as a user meets it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from click.testing import Result
from typer.testing import CliRunner

from routelearn.cli.main import app
from routelearn.data.records import PerformanceRecord
from routelearn.data.sample import Sample, generate_sample
from routelearn.data.writers import write_records
from routelearn.policies.threshold import GuaranteedThreshold, StrongShare
from routelearn.routers.errors import InputError, LeakError
from routelearn.routers.fallback import FallbackRouter
from routelearn.routers.learned import LearnedRouter
from routelearn.routers.loading import load

LOSS = 0.15


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["calibrate", *map(str, arguments)])


def done(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output + repr(result.exception)
    return " ".join((result.stdout + result.stderr).split())


@pytest.fixture(scope="module")
def fresh() -> Sample:
    """What the router was not trained on."""
    return generate_sample(1600, seed=11)


@pytest.fixture(scope="module")
def files(fresh: Sample, sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calibrate")
    labels = fresh.performances
    half = {str(query) for query in fresh.queries[::2]}
    write_records(labels, folder / "labels.parquet")
    write_records([r for r in labels if str(r.query) in half], folder / "first.parquet")
    write_records([r for r in labels if str(r.query) not in half], folder / "second.parquet")
    write_records([r for r in labels if str(r.query) in half][:80], folder / "few.parquet")
    write_records(fresh.preferences, folder / "preferences.parquet")
    write_records(sample.performances, folder / "train.parquet")
    turned = [
        PerformanceRecord(r.query, r.model, 1 - r.score) if r.model == "sim-small" else r
        for r in labels
        if str(r.query) not in half
    ]
    write_records(turned, folder / "turned.parquet")
    texts = [query for query in fresh.queries if isinstance(query, str)]
    (folder / "queries.txt").write_text("\n".join(text.replace("\n", " ") for text in texts) + "\n")
    (folder / "pool.json").write_text(
        json.dumps(
            [
                {"name": "sim-max", "input_price": 10.0, "output_price": 30.0},
                {"name": "sim-small", "input_price": 0.5, "output_price": 1.5},
            ]
        )
    )
    return folder


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    shutil.copytree(bundle, tmp_path / "router")
    return tmp_path / "router"


@pytest.fixture(scope="module")
def guaranteed(bundle: Path, files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("guaranteed") / "router"
    done(bundle, "--data", files / "first.parquet", "--no-leak-check", "--max-quality-loss", LOSS, "-o", out)
    return out


def queries_of(files: Path) -> list[str]:
    return (files / "queries.txt").read_text().splitlines()


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_strong_share_is_met_on_my_queries(share: float, bundle: Path, files: Path, tmp_path: Path) -> None:
    shown = done(bundle, "--data", files / "queries.txt", "--strong-share", share, "-o", tmp_path / "new")
    router = load(tmp_path / "new")
    decisions = router.route_batch(queries_of(files))
    assert sum(decision.model == "sim-max" for decision in decisions) / len(decisions) == pytest.approx(share, abs=0.01)
    assert f"threshold {router.threshold:.4f}" in shown
    assert "50%:" in shown
    for other in (0.1, 0.5, 0.85):  # the table is of these queries as well
        found = router.route_batch(queries_of(files), StrongShare(other))
        assert sum(decision.model == "sim-max" for decision in found) / len(found) == pytest.approx(other, abs=0.02)


def test_the_graph_stays_and_the_card_states_the_new_threshold(bundle: Path, files: Path, tmp_path: Path) -> None:
    done(bundle, "--data", files / "queries.txt", "--strong-share", 0.2, "-o", tmp_path / "new")
    before, after = load(bundle), load(tmp_path / "new")
    assert (tmp_path / "new/model.onnx").read_bytes() == (bundle / "model.onnx").read_bytes()
    assert f"Default threshold: {after.threshold:.4f}." in (tmp_path / "new/README.md").read_text()
    assert after.manifest.training == before.manifest.training
    assert after.manifest.reference == before.manifest.reference


def test_a_budget_is_met_on_my_queries(bundle: Path, files: Path, tmp_path: Path) -> None:
    options = ("--pool", files / "pool.json", "--output-tokens", 200)
    shown = done(
        bundle, "--data", files / "queries.txt", "--usd-per-thousand", 3, *options, "-o", tmp_path / "new",
        "--report", tmp_path / "report",
    )  # fmt: skip
    report = json.loads((tmp_path / "report/calibration.json").read_text())
    chosen = next(row for row in report["rows"] if row["chosen"])
    assert 2.9 < chosen["usd"] <= 3
    router = load(tmp_path / "new")
    decisions = router.route_batch(queries_of(files))
    usd = [
        (10 * -(-len(query) // 4) + 30 * 200 if d.model == "sim-max" else 0.5 * -(-len(query) // 4) + 1.5 * 200) / 1e3
        for query, d in zip(queries_of(files), decisions, strict=True)
    ]
    assert sum(usd) / len(usd) == pytest.approx(chosen["usd"])
    assert "USD per 1,000 queries" in shown


def test_a_budget_without_prices_or_below_always_weak_is_refused(bundle: Path, files: Path) -> None:
    options = (bundle, "--data", files / "queries.txt", "--usd-per-thousand")
    assert isinstance(run(*options, 3).exception, InputError)
    too_small = run(*options, 0.1, "--pool", files / "pool.json").exception
    assert isinstance(too_small, InputError)
    assert "always 'sim-small' costs" in str(too_small)


def test_a_guarantee_is_stored_shown_and_used(guaranteed: Path, files: Path, fresh: Sample) -> None:
    router = load(guaranteed)
    found = router.manifest.guarantee
    assert found is not None
    assert (found["max_quality_loss"], found["delta"], found["method"]) == (LOSS, 0.05, "betting")
    assert found["n"] > 500
    assert found["loss"] < found["bound"] <= LOSS
    assert 0 < found["threshold"] == router.threshold
    assert 0 < found["strong_share"] < 0.95
    assert found["history"] == []
    inspected = CliRunner().invoke(app, ["inspect", str(guaranteed)]).stdout
    assert "loss at most 0.15" in inspected
    as_json = json.loads(CliRunner().invoke(app, ["inspect", str(guaranteed), "--json"]).stdout)
    assert as_json["guarantee"] == found
    card = (guaranteed / "README.md").read_text()
    assert "## Guaranteed threshold" in card
    assert f"At threshold {found['threshold']:.4f}" in card
    decisions = FallbackRouter(guaranteed).route_batch(queries_of(files)[:50], GuaranteedThreshold(0.2))
    assert {d.threshold for d in decisions if d.source == "learned"} == {found["threshold"]}


def test_the_guaranteed_loss_holds_on_other_queries(guaranteed: Path, files: Path) -> None:
    router = load(guaranteed)
    frame = pd.read_parquet(files / "second.parquet")
    scores = frame.pivot_table(index="prompt", columns="model", values="score").dropna()
    decisions = router.route_batch(list(scores.index))
    got = [scores.loc[query, d.model] for query, d in zip(scores.index, decisions, strict=True)]
    losses = scores["sim-max"] - got
    assert losses.mean() < LOSS + 3 * losses.std() / len(losses) ** 0.5


def test_score_and_route_take_the_guaranteed_threshold_whatever_the_default_is(
    guaranteed: Path, bundle: Path, files: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    done(guaranteed, "--data", files / "queries.txt", "--strong-share", 0.0, "-o", moved)
    assert load(moved).manifest.guarantee == load(guaranteed).manifest.guarantee
    expected = load(guaranteed).route_batch(queries_of(files))
    out = tmp_path / "scored.jsonl"
    CliRunner().invoke(
        app, ["score", str(moved), str(files / "queries.txt"), "-o", str(out), "--guaranteed"], catch_exceptions=False
    )
    found = pd.read_json(out, lines=True)
    learned = found.source == "learned"
    assert found.model[learned].tolist() == [d.model for d, kept in zip(expected, learned, strict=True) if kept]
    none = CliRunner().invoke(app, ["route", str(bundle), "Hi!", "--guaranteed"])
    assert isinstance(none.exception, InputError)


def test_a_guarantee_for_a_larger_loss_or_another_pair_is_refused(guaranteed: Path, router: LearnedRouter) -> None:
    with pytest.raises(InputError, match=r"guarantees a loss of at most 0\.15, and 0\.1 was asked for"):
        load(guaranteed).route("x", GuaranteedThreshold(0.1))
    with pytest.raises(InputError, match="not for 'sim-small' over 'sim-max'"):
        FallbackRouter(guaranteed, strong="sim-small", weak="sim-max").route("Say hello.", GuaranteedThreshold())
    with pytest.raises(InputError, match="no guaranteed threshold"):
        router.route("x", GuaranteedThreshold())


def test_without_an_output_nothing_is_written(copy: Path, files: Path) -> None:
    before = {path: path.read_bytes() for path in copy.parent.rglob("*") if path.is_file()}
    shown = done(copy, "--data", files / "labels.parquet", "--no-leak-check", "--max-quality-loss", LOSS)
    assert {path: path.read_bytes() for path in copy.parent.rglob("*") if path.is_file()} == before
    assert "no bundle was written" in shown
    assert "the expected loss against always-strong is at most 0.15" in shown
    assert "exchangeable" in shown


def test_calibrating_again_keeps_the_history_and_says_what_changed(copy: Path, files: Path) -> None:
    options = ("--no-leak-check", "--max-quality-loss", LOSS, "--write")
    done(copy, "--data", files / "first.parquet", *options)
    first = load(copy).manifest.guarantee
    shown = done(copy, "--data", files / "second.parquet", *options)
    second = load(copy).manifest.guarantee
    assert first is not None
    assert second is not None
    assert second["history"] == [{key: value for key, value in first.items() if key != "history"}]
    assert f"before: threshold {first['threshold']:.4f}" in shown
    assert "is not contradicted by these labels" in shown
    assert "no new evidence" in done(copy, "--data", files / "second.parquet", *options)
    third = load(copy).manifest.guarantee
    assert third is not None
    assert [item["data_fingerprint"] for item in third["history"]] == [
        first["data_fingerprint"],
        second["data_fingerprint"],
    ]


def test_new_labels_can_contradict_the_guarantee_before(guaranteed: Path, files: Path) -> None:
    """The weak model became a bad one."""
    result = run(guaranteed, "--data", files / "turned.parquet", "--no-leak-check", "--max-quality-loss", 0.3)
    shown = " ".join((result.stdout + result.stderr + str(result.exception)).split())
    assert "is contradicted by these labels" in shown


def test_too_few_labels_are_refused_with_a_number_of_labels(copy: Path, files: Path) -> None:
    result = run(copy, "--data", files / "few.parquet", "--no-leak-check", "--max-quality-loss", 0.02, "--write")
    assert isinstance(result.exception, InputError)
    assert re.search(r"20 labelled prompts do not show .* some [\d,]+ more would do", str(result.exception))
    assert load(copy).manifest.guarantee is None


def test_labels_of_training_prompts_are_refused(bundle: Path, files: Path) -> None:
    options = (bundle, "--data", files / "train.parquet", "--max-quality-loss", LOSS)
    assert "give the training files" in str(run(*options).exception)
    assert isinstance(run(*options, "--train", files / "train.parquet").exception, LeakError)
    held_out = done(*options, "--train", files / "train.parquet", "--split", "test", "--drop-leaks")
    assert "guarantee: with confidence 0.95" in held_out
    assert "the leak check was turned off" in done(*options, "--no-leak-check")


def test_preferences_are_guaranteed_in_win_rate(bundle: Path, files: Path) -> None:
    shown = done(bundle, "--data", files / "preferences.parquet", "--no-leak-check", "--max-quality-loss", 0.1)
    assert "0.1 points of the win rate" in shown


def test_the_report_has_the_table_and_the_curve(bundle: Path, files: Path, tmp_path: Path) -> None:
    done(
        bundle, "--data", files / "labels.parquet", "--no-leak-check", "--max-quality-loss", LOSS, "--report", tmp_path,
        "--pool", files / "pool.json",
    )  # fmt: skip
    report = json.loads((tmp_path / "calibration.json").read_text())
    shares = [row["strong_share"] for row in report["rows"]]
    assert shares == sorted(shares)
    assert [row["loss"] for row in report["curve"]][-1] == 0
    costs = [row["usd"] for row in report["curve"]]
    assert costs == sorted(costs)
    chosen = next(row for row in report["rows"] if row["chosen"])
    assert chosen["threshold"] == report["guarantee"]["threshold"]
    assert chosen["interval"][0] < chosen["loss"] < chosen["interval"][1]
    page = (tmp_path / "calibration.html").read_text()
    assert "<svg" in page
    assert f"<b>{chosen['threshold']:.4f}</b>" in page
    assert "http" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "give one of"),
        (("--strong-share", 0.5, "--max-quality-loss", 0.1), "give one of"),
        (("--strong-share", 1.5), "strong share is 1.5"),
        (("--strong-share", 0.5, "--write", "-o", "new"), "not both"),
        (("--max-quality-loss", 2, "--no-leak-check"), "between 0 and 1"),
    ],
)
def test_options_that_cannot_work_are_input_errors(
    options: tuple[object, ...], message: str, bundle: Path, files: Path
) -> None:
    result = run(bundle, "--data", files / "labels.parquet", *options)
    assert isinstance(result.exception, InputError)
    assert message in str(result.exception)


def test_a_folder_that_is_no_bundle_is_not_written_over(bundle: Path, files: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    result = run(bundle, "--data", files / "queries.txt", "--strong-share", 0.5, "-o", tmp_path)
    assert isinstance(result.exception, InputError)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
