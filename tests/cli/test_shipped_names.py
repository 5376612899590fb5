"""Commands take the name of a router that comes with routelearn, in an empty folder too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.cli import run

from routelearn.data.sample import Sample
from routelearn.data.writers import write_records
from routelearn.routers import load
from routelearn.routers.shipped import MODELS

HARD = "Prove that the square root of 2 is irrational."
PAIR = ("--strong", "sim-max", "--weak", "sim-small")


@pytest.fixture
def folder(sample: Sample, tmp_path: Path) -> Path:
    """A folder of data, and beside it an empty one."""
    write_records(sample.performances[:1200], tmp_path / "records.jsonl")
    texts = [query.replace("\n", " ") for query in sample.queries[:200] if isinstance(query, str)]
    (tmp_path / "queries.txt").write_text("\n".join(texts) + "\n")
    (tmp_path / "empty").mkdir()
    return tmp_path


def test_a_query_is_routed_for_any_pair(tmp_path: Path) -> None:
    done = run("route", "general", HARD, "--strong", "gpt-4o", "--weak", "brand-new", cwd=tmp_path)
    decision = json.loads(done.stdout)
    assert decision["source"] == "general"
    assert decision["reason"].endswith("brand-new is placed only by its tier, so the score is not calibrated")


def test_a_bundle_that_is_not_there_is_replaced_by_the_general_router_unless_that_is_switched_off(
    tmp_path: Path,
) -> None:
    words = ("route", "nowhere", HARD, *PAIR)
    assert "no bundle at nowhere" in run(*words, cwd=tmp_path).stderr
    assert json.loads(run(*words, "--fallback", cwd=tmp_path).stdout)["source"] == "general"
    assert json.loads(run(*words, "--fallback", "--no-general", cwd=tmp_path).stdout)["source"] == "rules"


def test_an_explanation_shows_the_general_router_that_stands_in(tmp_path: Path) -> None:
    words = ("route", "nowhere", HARD, "--strong", "gpt-4o", "--weak", "gpt-4o-mini", "--fallback", "--explain")
    said = run(*words, cwd=tmp_path).stdout
    assert "gpt-4o is placed by the table of abilities" in said
    assert "Expected quality: gpt-4o 0." in said
    assert "The query is like the training queries: novelty 0." in said


def test_inspect_and_export_read_a_shipped_router(folder: Path) -> None:
    empty = folder / "empty"
    assert json.loads(run("inspect", "general", "--json", cwd=empty).stdout)["kind"] == "general"
    assert run("export", "general", "--format", "triton", "-o", "out", cwd=empty).returncode == 0
    assert (empty / "out" / "router.json").read_bytes() == (MODELS / "general" / "router.json").read_bytes()


def test_extend_says_that_a_general_router_is_not_extended(folder: Path) -> None:
    done = run("extend", "general", "--data", folder / "records.jsonl", cwd=folder / "empty")
    assert done.returncode == 2
    assert "general is a general router; expected a similarity router" in done.stderr
    assert not list((folder / "empty").iterdir())


def test_calibrate_does_not_replace_a_shipped_router(folder: Path) -> None:
    before = (MODELS / "general" / "router.json").read_bytes()
    words = ("calibrate", "general", "--data", folder / "queries.txt", "--strong-share", "0.3", *PAIR)
    done = run(*words, "--write", cwd=folder / "empty")
    assert done.returncode == 2
    assert "'general' comes with routelearn and is not replaced; expected --output FOLDER" in done.stderr
    assert "to write one, give --output FOLDER" in run(*words, cwd=folder / "empty").stderr
    assert not list((folder / "empty").iterdir())
    assert (MODELS / "general" / "router.json").read_bytes() == before


def test_a_calibrated_general_router_is_that_of_its_pair_and_keeps_its_threshold(folder: Path) -> None:
    words = ("calibrate", "general", "--data", folder / "queries.txt", "--strong-share", "0.3", *PAIR, "-o", "mine")
    assert run(*words, cwd=folder).returncode == 0
    mine = load(folder / "mine")
    queries = (folder / "queries.txt").read_text().splitlines()
    assert (mine.strong, mine.weak) == ("sim-max", "sim-small")
    assert (mine.score(queries) >= mine.threshold).mean() == pytest.approx(0.3, abs=0.02)
    general = load("general", strong="sim-max", weak="other")
    other = load(folder / "mine", weak="other")
    assert (other.strong, other.threshold) == ("sim-max", general.threshold)
    done = run("export", "mine", "--format", "triton", "-o", "out", cwd=folder)
    assert "mine is a general router for sim-max and sim-small" in done.stderr


def test_score_says_how_to_calibrate_a_general_router_for_its_pair(folder: Path) -> None:
    done = run("score", "general", "queries.txt", "--strong-share", "0.6", *PAIR, "-o", "scored.jsonl", cwd=folder)
    assert "calibrate general --strong sim-max --weak sim-small" in done.stderr
    assert {json.loads(line)["source"] for line in (folder / "scored.jsonl").read_text().splitlines()} >= {"general"}


def test_a_folder_of_scores_belongs_to_the_router_that_answers_in_a_routers_place(folder: Path) -> None:
    words = ("score", "nowhere", "queries.txt", "--fallback", *PAIR, "-o", "scored/")
    assert run(*words, cwd=folder).returncode == 0
    assert "already there" in run(*words, cwd=folder).stderr
    assert run(*words, "--no-general", cwd=folder).returncode == 2


def test_evaluate_places_a_general_router_for_the_pair_of_the_others(folder: Path, bundle: Path) -> None:
    words = ("evaluate", "general", bundle, "--data", "records.jsonl", "--no-leak-check", "--bootstrap", "2")
    done = run(*words, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "sim-max over sim-small" in done.stdout
    assert "general recovers 80%" in " ".join(done.stdout.split())
