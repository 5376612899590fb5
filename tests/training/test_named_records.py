"""Bundles that name their training records: what the file says, and whatever rewrites a bundle keeps it in step."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import PAIR
from helpers.built_once import built_once
from helpers.cli import run

from routelearn import FallbackRouter
from routelearn.data.records import PerformanceRecord, PreferenceRecord, Record
from routelearn.data.sample import Sample
from routelearn.routers import explain, prompt_hash
from routelearn.routers.bundle import CARD, MAX_BYTES, RECORDS, read_manifest
from routelearn.routers.errors import InputError
from routelearn.routers.hub import HubRouter
from routelearn.routers.loading import load
from routelearn.routers.nearest import NamedRecord, NamedRecords
from routelearn.routers.query import prompt_key
from routelearn.routers.session import FIND_NEAREST, NEAREST
from routelearn.training.export.portable import export_portable
from routelearn.training.new_models import place_new_models
from routelearn.training.similarity.config import SimilarityConfig
from routelearn.training.similarity.extend import extend_similarity
from routelearn.training.similarity.train import train_similarity

#: The vectors of the index are rounded to 8 bits, so that the cosine of a query with itself is not exactly 1.
ROUNDING = 0.03
NEW = "Prove that every zyzzyva is a weevil, in rhyme."


@pytest.fixture(scope="session")
def named_ranking(shared: Path, tiny_encoder: Path, sample: Sample) -> Path:
    """A similarity-weighted ranking that names its records by text."""

    def build(folder: Path) -> None:
        settings: dict[str, Any] = {"method": "bradley-terry", "name_records": "text", **PAIR}
        train_similarity(sample.preferences, folder, SimilarityConfig(encoder=str(tiny_encoder), **settings))

    return built_once(shared / "named_ranking" / "named", build)


def names_of(bundle: Path) -> NamedRecords:
    return NamedRecords.from_json((bundle / RECORDS).read_bytes(), read_manifest(bundle).training["index"]["queries"])


def means(records: list[PerformanceRecord]) -> dict[str, dict[str, float]]:
    """The mean score of each model on each prompt, by the hash of the prompt."""
    scores: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        scores[prompt_hash(record.query)][record.model].append(record.score)
    return {name: {model: float(np.mean(all_)) for model, all_ in by.items()} for name, by in scores.items()}


def trained(records: list[Any]) -> list[Any]:
    return [record for record in records if record.split != "test"]


def test_every_row_of_the_index_has_its_hash_and_mean_outcomes(named_bundle: Path, sample: Sample) -> None:
    expected = means(trained(sample.performances))
    named = names_of(named_bundle)
    assert named.by == "hash"
    assert {record.name for record in named.records} == set(expected)
    for record in named.records:
        assert {model: mean for model, (mean, _) in record.outcomes.items()} == pytest.approx(expected[record.name])


def test_an_outcome_of_a_battle_is_the_win_rate_of_each_of_its_models(named_ranking: Path, sample: Sample) -> None:
    wins: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for record in trained(sample.preferences):
        wins[prompt_key(record.query)][record.model_a].append(record.preference)
        wins[prompt_key(record.query)][record.model_b].append(1 - record.preference)
    named = names_of(named_ranking)
    assert named.by == "text"
    for record in named.records:
        if "\n" in record.name:  # of a chat, whose text stands newest turn first
            continue
        expected = {model: float(np.mean(won)) for model, won in wins[prompt_key(record.name)].items()}
        assert {model: mean for model, (mean, _) in record.outcomes.items()} == pytest.approx(expected)


def test_the_nearest_records_of_a_training_prompt_begin_with_itself(named_bundle: Path, sample: Sample) -> None:
    router = load(named_bundle)
    expected = means(trained(sample.performances))
    for query in [record.query for record in trained(sample.performances)[:40:10]]:
        nearest = router.nearest(query)
        assert len(nearest) == 5
        similarities = [one.similarity for one in nearest]
        assert similarities == sorted(similarities, reverse=True)
        assert similarities[0] == pytest.approx(1, abs=ROUNDING)
        same = [
            one for one in nearest if one.similarity > similarities[0] - ROUNDING
        ]  # prompts may have the same tokens
        itself = next(one for one in same if one.name == prompt_hash(query))
        assert itself.quality == pytest.approx(expected[itself.name])


def test_names_change_no_score_and_are_computed_only_when_asked_for(
    named_bundle: Path, similarity_bundle: Path, sample: Sample
) -> None:
    named, plain = load(named_bundle), load(similarity_bundle)
    queries = sample.queries[:50]
    assert np.array_equal(named.quality(queries), plain.quality(queries))
    assert named._session.outputs == plain._session.outputs == ["quality", "novelty", "vector"]
    assert np.array_equal(named.score(queries[:1]), plain.score(queries[:1]))
    assert plain.nearest(queries[0]) == ()
    assert named.manifest.files.keys() - plain.manifest.files.keys() == {RECORDS}


def test_the_search_runs_only_where_its_switch_is_on(named_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    router = load(named_bundle)
    inner, switched = router._session._run, []
    feeds = {"input_ids": np.array([[5, 6]], np.int32), "attention_mask": np.ones((1, 2), np.uint8)}
    assert [output.shape for output in inner(NEAREST, feeds)] == [(1, 1), (1, 1)]  # the other branch ran
    assert [output.shape for output in inner(NEAREST, {**feeds, FIND_NEAREST: np.array([True])})] == [(1, 5), (1, 5)]
    monkeypatch.setattr(
        router._session, "_run", lambda *given: switched.append(FIND_NEAREST in given[1]) or inner(*given)
    )
    router.route(NEW)
    router.route_batch([NEW, "Hello!"])
    router.score([NEW])
    assert switched
    assert not any(switched)
    router.nearest(NEW)
    assert switched[-1]


def test_an_explanation_names_the_nearest_records_in_words_and_as_data(named_bundle: Path, sample: Sample) -> None:
    query = next(record.query for record in trained(sample.performances) if isinstance(record.query, str))
    found = explain(FallbackRouter(named_bundle, novelty_bound=2.0), query)
    assert found.decision.source == "learned"
    assert len(found.nearest) == 5
    line = next(line for line in str(found).splitlines() if line.startswith("Nearest training record 1: "))
    assert repr(found.nearest[0].name) in line
    assert f"similarity {found.nearest[0].similarity:.2f}; sim-large " in line
    data = json.loads(json.dumps(found.as_dict()))
    assert data["nearest"][0]["name"] == found.nearest[0].name
    assert data["nearest"][0]["quality"] == found.nearest[0].quality


def test_a_query_unlike_the_records_is_told_the_nearest_ones_all_the_same(named_bundle: Path) -> None:
    found = explain(FallbackRouter(named_bundle, novelty_bound=-1.0), NEW)
    assert (found.decision.cause, len(found.nearest)) == ("novel", 5)
    assert "Nearest training record 5: " in str(found)


def test_where_the_learned_router_has_no_say_no_record_is_named(named_bundle: Path) -> None:
    unknown = explain(FallbackRouter(named_bundle, strong="nobody", weak="sim-small"), NEW)
    assert unknown.decision.cause == "unknown-model"
    assert unknown.nearest == ()


def test_the_command_prints_the_nearest_records(named_bundle: Path) -> None:
    printed = run("route", named_bundle, NEW, "--explain")
    assert printed.stdout.count("Nearest training record ") == 5, printed.stderr


def test_extending_keeps_names_and_index_in_step(named_bundle: Path, sample: Sample, tmp_path: Path) -> None:
    before = names_of(named_bundle)
    known = next(record.query for record in trained(sample.performances) if record.model == "sim-nano")
    at = [record.name for record in before.records].index(prompt_hash(known))
    mean, weight = before.records[at].outcomes["sim-nano"]
    records = [PerformanceRecord(known, "sim-nano", 1.0, weight=2.0), PerformanceRecord(NEW, "newcomer", 0.25)]
    path = extend_similarity(named_bundle, records, tmp_path / "r")
    after = names_of(path)
    assert [record.name for record in after.records] == [*(one.name for one in before.records), prompt_hash(NEW)]
    assert after.records[-1].outcomes == {"newcomer": (0.25, 1.0)}
    assert after.records[at].outcomes["sim-nano"] == pytest.approx(
        ((mean * weight + 2) / (weight + 2), weight + 2), rel=1e-4
    )
    nearest = load(path).nearest(NEW)[0]
    assert (nearest.name, nearest.quality) == (prompt_hash(NEW), {"newcomer": 0.25})


def test_an_index_that_is_full_drops_names_with_rows(tiny_encoder: Path, sample: Sample, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"encoder": str(tiny_encoder), "name_records": "text", "index_size": 60, **PAIR}
    bundle = train_similarity(sample.performances, tmp_path / "small", SimilarityConfig(**settings))
    more: list[Record] = [
        PerformanceRecord(f"{NEW} ({i})", name, i % 2) for i in range(40) for name in ("sim-max", "sim-small")
    ]
    extended = extend_similarity(bundle, more, tmp_path / "extended")
    for path in (bundle, extended):
        router, named = load(path), names_of(path)
        assert len(named.records) == 60
        for record in named.records[::7]:  # each row has the name of its own query
            same = [one.name for one in router.nearest(record.name) if one.similarity > 1 - ROUNDING]
            assert record.name in same
    assert any(record.name.startswith(NEW) for record in names_of(extended).records)


def test_a_ranking_that_is_extended_keeps_naming_by_text(named_ranking: Path, tmp_path: Path) -> None:
    path = extend_similarity(named_ranking, [PreferenceRecord(NEW, "sim-nano", "sim-max", 1.0)], tmp_path / "r")
    nearest = load(path).nearest(NEW)[0]
    assert (nearest.name, nearest.quality) == (NEW, {"sim-nano": 1.0, "sim-max": 0.0})


def test_new_models_a_new_threshold_an_export_and_a_copy_keep_the_file(
    named_bundle: Path, sample: Sample, tmp_path: Path
) -> None:
    file = (named_bundle / RECORDS).read_bytes()
    newcomer = [replace(r, model="newcomer") for r in trained(sample.performances) if r.model == "sim-small"]
    adapted = place_new_models(named_bundle, newcomer[:40], tmp_path / "adapted")
    queries = tmp_path / "queries.txt"
    queries.write_text("\n".join(f"Prove number {i}." for i in range(40)))
    calibrated = tmp_path / "calibrated"
    done = run("calibrate", named_bundle, "--data", queries, "--strong-share", "0.3", "-o", calibrated)
    assert done.returncode == 0, done.stderr
    HubRouter.from_pretrained(named_bundle).save_pretrained(tmp_path / "hub")
    exported = export_portable(named_bundle, tmp_path / "exported", "triton")
    assert (exported / RECORDS).read_bytes() == file
    expected = load(named_bundle).nearest(NEW)
    for path in (adapted, calibrated, tmp_path / "hub"):
        assert (path / RECORDS).read_bytes() == file
        assert load(path).nearest(NEW) == expected
    assert HubRouter.from_pretrained(tmp_path / "hub").nearest(NEW) == expected


def test_the_model_card_says_what_the_bundle_tells_of_its_prompts(
    named_bundle: Path, named_ranking: Path, similarity_bundle: Path
) -> None:
    assert "holds hashes of the training queries" in (named_bundle / CARD).read_text()
    assert "holds the texts of the training queries" in (named_ranking / CARD).read_text()
    assert RECORDS not in (similarity_bundle / CARD).read_text()


def test_no_prompt_stands_in_a_bundle_that_names_by_hash(named_bundle: Path, sample: Sample) -> None:
    held = b"".join(path.read_bytes() for path in named_bundle.iterdir())
    prompts = {record.query for record in trained(sample.performances) if isinstance(record.query, str)}
    assert not [prompt for prompt in prompts if len(prompt) > 30 and prompt.encode() in held]


def test_the_same_records_give_the_same_file(
    named_bundle: Path, tiny_encoder: Path, sample: Sample, tmp_path: Path
) -> None:
    config = SimilarityConfig(encoder=str(tiny_encoder), name_records="hash", **PAIR)  # type: ignore[arg-type]
    again = train_similarity(sample.performances, tmp_path / "named", config)
    assert read_manifest(again).files == read_manifest(named_bundle).files


def test_names_that_are_too_large_for_a_loader_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MAX_BYTES, RECORDS, 1000)
    with pytest.raises(InputError, match="Name them by hash"):
        NamedRecords("text", [NamedRecord("x" * 1000, {})]).to_json()


def test_the_hash_of_a_prompt_is_that_of_its_folded_text() -> None:
    expected = hashlib.sha256(b"what is 2 + 2?").hexdigest()[:16]
    assert prompt_hash("  What is\n2 + 2? ") == expected
    assert (
        prompt_hash([{"role": "system", "content": "Be kind."}, {"role": "user", "content": "What is 2 + 2?"}])
        == expected
    )
