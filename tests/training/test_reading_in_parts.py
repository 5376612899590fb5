"""What reads many queries in parts gives what the whole would give."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from routelearn.data.sample import Sample
from routelearn.routers.bundle import Truncation
from routelearn.routers.tokenizer import encode
from routelearn.training import examples as examples_module
from routelearn.training.encoders import static_network
from routelearn.training.encoders.static import static_encoder, tokenize
from routelearn.training.encoders.static_network import encode_queries
from routelearn.training.examples import data_fingerprint, examples_of, primary_outcomes, validation_folds
from routelearn.training.fit import drift_reference
from routelearn.training.fit.drift_reference import projection_of
from routelearn.training.fit.factorization import Factors, Problem, fit
from routelearn.training.fit.ranking import fit_ranking, mean_loss
from routelearn.training.log import TrainingLog
from routelearn.training.similarity import index
from routelearn.training.similarity.kernel import evidence_of, kernel_sums

#: Queries with repeated words, without a word, and longer than the truncation.
QUERIES = ["one two one two two", "", "three", *(f"word {'more ' * n}" for n in range(20))]


def test_queries_are_encoded_alike_in_parts(tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, truncation = static_encoder(tiny_encoder), Truncation(max_tokens=8, distinct=True)
    whole = encode_queries(QUERIES, encoder, truncation)
    monkeypatch.setattr(static_network, "_QUERIES_AT_ONCE", 5)
    parts = encode_queries(QUERIES, encoder, truncation)
    assert parts.epsilon == whole.epsilon
    assert np.array_equal(parts.unit, whole.unit)
    assert np.array_equal(parts.features, whole.features)


def test_each_token_of_a_query_is_kept_once(tiny_encoder: Path) -> None:
    backend = static_encoder(tiny_encoder).backend()
    ids, lengths = tokenize(QUERIES, backend, Truncation(max_tokens=64, distinct=True))
    for query, row in zip(QUERIES, np.split(ids, np.cumsum(lengths)[:-1]), strict=True):
        assert row.tolist() == np.unique(encode(backend, [query])[0]).tolist()


def test_the_fingerprint_is_that_of_the_whole_text(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = examples_of(sample.performances)
    text = json.dumps([examples.keys, examples.models, *([examples.tasks] if any(examples.tasks) else [])])
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass"))
    for outcomes in (examples.preferences, examples.performances):
        for array in (outcomes.query, outcomes.model, outcomes.target, outcomes.weight, outcomes.source):
            digest.update(array.tobytes())
    monkeypatch.setattr(examples_module, "_PROMPTS_AT_ONCE", 7)
    assert data_fingerprint(examples) == digest.hexdigest()


def test_the_sketch_is_that_of_all_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = np.random.default_rng(0).standard_normal((500, 6)).astype(np.float32) * np.arange(1, 7, dtype=np.float32)
    whole = projection_of(vectors)
    monkeypatch.setattr(drift_reference, "_VECTORS_AT_ONCE", 64)
    for found, expected in zip(projection_of(vectors), whole, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_kernel_sums_in_parts_and_for_several_bandwidths_are_those_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    unit = random.standard_normal((60, 8)).astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    residual, amount = random.random((2, 60, 3)).astype(np.float32)
    monkeypatch.setattr(index, "_SIMILARITIES_AT_ONCE", 60 * 7)
    for bandwidth, sums in zip((2.0, 16.0), kernel_sums(unit, unit, residual, amount, (2.0, 16.0)), strict=True):
        weight = np.exp(bandwidth * (unit @ unit.T - 1))
        for found, values in zip(sums, (residual, amount), strict=True):
            np.testing.assert_allclose(found, weight @ values, rtol=1e-4)


@pytest.mark.parametrize("kind", ["preferences", "performances"])
def test_evidence_of_some_queries_is_their_part_of_the_evidence_of_all(sample: Sample, kind: str) -> None:
    examples = examples_of(getattr(sample, kind))
    ranking = Factors.start(1, len(examples.models), 1, len(examples.sources), 0)
    rows = np.array([5, 2, 40])
    whole, part = evidence_of(examples, ranking), evidence_of(examples, ranking, rows)
    assert np.array_equal(part.residual, whole.residual[rows])
    assert np.array_equal(part.amount, whole.amount[rows])


@pytest.mark.parametrize("kind", ["preferences", "performances"])
def test_the_global_ranking_of_summed_outcomes_is_that_of_all(sample: Sample, kind: str, tmp_path: Path) -> None:
    examples = examples_of([*getattr(sample, kind), *sample.preferences[:50], *sample.performances[:50]])
    folds = validation_folds(examples, 3, 0)
    with TrainingLog(tmp_path / "log", show_progress=False) as log:
        ranking = fit_ranking(examples, folds, log)
    parts = [examples.preferences, examples.performances]
    models, features = len(examples.models), np.zeros((len(examples.queries), 1))
    start = Factors.start(1, models, 1, len(examples.sources), 0)
    losses = []
    for fold, one in zip(folds, ranking.folds, strict=True):
        problem = Problem(features, [part.of_queries(~fold) for part in parts], models)
        slow = fit(problem, start, l2=float("inf"), bias_l2=ranking.bias_l2, tolerance=1e-14)
        np.testing.assert_allclose(one.bias, slow.bias, atol=1e-4)
        held = primary_outcomes(examples, fold)
        losses.append((mean_loss(held, slow.utilities(features)), sum(part.weight.sum() for part in held)))
    values, weights = zip(*losses, strict=True)
    assert ranking.loss == pytest.approx(np.average(values, weights=weights), abs=1e-6)
