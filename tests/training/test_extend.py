"""What `extend` does to prompts that are there already, to models without records, and to models with few records."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from routelearn.data.records import PerformanceRecord, PreferenceRecord
from routelearn.data.sample import Sample
from routelearn.routers.bundle import read_manifest
from routelearn.routers.loading import load
from routelearn.training.similarity.extend import extend_similarity


def prompts(sample: Sample, count: int) -> list[str]:
    """Prompts that the fixture was trained on."""
    trained = [r.query for r in sample.performances if r.split != "test"]
    return list(dict.fromkeys(query for query in trained if isinstance(query, str)))[:count]


@pytest.mark.slow
def test_records_of_a_prompt_that_is_there_go_to_its_row(
    similarity_bundle: Path, sample: Sample, tmp_path: Path
) -> None:
    known = prompts(sample, 20)
    size = read_manifest(similarity_bundle).training["index"]["queries"]
    records = [PerformanceRecord(query, "sim-nano", 1.0) for query in known]
    records.append(PerformanceRecord("Prove that every zyzzyva is a weevil, in rhyme.", "sim-nano", 1.0))
    path = extend_similarity(similarity_bundle, records, tmp_path / "r")
    training = read_manifest(path).training
    assert training["index"]["queries"] == size + 1
    assert (training["extended"][0]["queries"], training["extended"][0]["merged_queries"]) == (21, 20)
    nano = load(path).models.index("sim-nano")
    gained = load(path).quality(known)[:, nano] - load(similarity_bundle).quality(known)[:, nano]
    assert gained.mean() > 0.01
    again = extend_similarity(path, records, tmp_path / "again")  # an extended bundle knows its new prompt too
    assert read_manifest(again).training["index"]["queries"] == size + 1


@pytest.mark.slow
def test_battles_of_a_prompt_that_is_there_go_to_its_row(ranking_bundle: Path, sample: Sample, tmp_path: Path) -> None:
    known = list(dict.fromkeys(r.query for r in sample.preferences if r.split != "test" and isinstance(r.query, str)))[
        :9
    ]
    size = read_manifest(ranking_bundle).training["index"]["queries"]
    records = [PreferenceRecord(query, "sim-nano", "sim-max", 1.0) for query in known]
    after = read_manifest(extend_similarity(ranking_bundle, records, tmp_path / "r")).training
    assert after["index"]["queries"] == size
    assert after["extended"][0]["moved"].startswith("a rating belongs to a tier of models")


def test_models_without_records_keep_their_qualities(similarity_bundle: Path, sample: Sample, tmp_path: Path) -> None:
    records = [
        PerformanceRecord(f"{query} again", name, 1.0)
        for query in prompts(sample, 60)
        for name in ("sim-nano", "newcomer")
    ]
    path = extend_similarity(similarity_bundle, records, tmp_path / "r")
    assert read_manifest(path).training["extended"][0]["moved"] == ""
    before, after = load(similarity_bundle), load(path)
    texts = [query for query in sample.queries[:300] if isinstance(query, str)]
    moved = np.abs(after.quality(texts)[:, : len(before.models)] - before.quality(texts)).max(axis=0)
    untouched = [name != "sim-nano" for name in before.models]
    assert moved[untouched].max() < 1e-5
    assert moved[before.models.index("sim-nano")] > 0.01


@pytest.mark.parametrize("easy", [True, False], ids=["easy queries", "hard queries"])
def test_a_newcomer_that_was_asked_one_kind_of_query_is_not_judged_by_it(
    easy: bool, similarity_bundle: Path, sample: Sample, tmp_path: Path
) -> None:
    """A copy of sim-small with few records, all of queries where the pool does well (or badly), is still sim-small."""
    router = load(similarity_bundle)
    known = prompts(sample, 10_000)
    order = np.argsort(router.quality(known).mean(axis=1))
    chosen = {known[int(row)] for row in (order[-60:] if easy else order[:60])}
    records = [
        replace(record, model="newcomer")
        for record in sample.performances
        if record.model == "sim-small" and isinstance(record.query, str) and record.query in chosen
    ]
    assert 30 <= len(records) <= 80
    extended = load(extend_similarity(similarity_bundle, records, tmp_path / "r"))
    base = dict(zip(extended.models, extended.manifest.training["index"]["base"], strict=True))
    scored = float(np.mean([record.score for record in records]))
    assert abs(base["newcomer"] - base["sim-small"]) < abs(scored - base["sim-small"])
