"""Add records and models to a similarity router that is already there, without training it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from ...data.records import Record
from ...monitoring.reference import LEAST_REFERENCE, Moments, Reference
from ...policies.threshold import StrongShare
from ...routers.decision import Floats, Model
from ...routers.errors import InputError
from ...routers.threshold_table import threshold_table
from ..encoders.static_network import encode_queries, static_quality
from ..examples import Examples, data_fingerprint, examples_of
from ..export.gate import parity_gate
from ..export.publish import publish
from ..fit.drift_reference import blended, projection_of
from ..fit.factorization import Array, Factors, logits, losses, sigmoid
from ..fit.minimise import minimise
from ..fit.novelty import centroids_of, held_out_novelty
from .index import subsample
from .kernel import Evidence, KernelNetwork, evidence_of
from .stored import KernelIndex, RankingIndex, StoredRouter
from .train import Network, run_limits
from .weighted_ranking import Start, WeightedRankingNetwork, battle_counts

#: Pseudo-records that hold a new model at the pool's average.
_PRIOR = 1.0
#: Queries of the index whose scores, each computed without itself, give the new thresholds.
_CALIBRATION_QUERIES = 2000
#: Share of the queries whose novelty, against the others, makes the new drift reference.
_NOVELTY_SHARE = 0.2


def extend_similarity(
    bundle: str | Path, records: Sequence[Record], out: str | Path | None = None, *, pool: Sequence[Model] = ()
) -> Path:
    """Add new records to the index of a similarity router, and models that they are the first to mention.

    Bandwidth, prior, tiers and calibration stay. The thresholds are taken again, from scores of queries of the index,
    each computed without itself. A new model starts at what its records say against the global ranking of the others.

    Args:
        bundle: a similarity bundle.
        records: new records; those marked "test" are left out.
        out: where the result goes; None: in place, renamed over the old bundle when all is well.
        pool: new models with prices.

    Returns:
        The folder.

    Raises:
        InputError: it is not a similarity bundle, there are no records, or they are of a kind that it does not hold.
        BundleError: the bundle cannot be trusted.
        ExportError: the exported graph does not reproduce the network.
    """
    stored = StoredRouter.read(bundle)
    additions = _additions(stored, records)
    build = _build(stored, additions)
    network, examples, manifest = build.network, additions.examples, stored.manifest
    network.centroids = centroids_of(additions.unit, stored.seed)
    network.projection = stored.projection() or projection_of(additions.unit)
    table = threshold_table(build.scores)
    reference = _reference(stored, network, additions, build.scores)
    prices = {model.name: model for model in pool}
    return publish(
        out or bundle,
        replace(
            manifest,
            pool=(*manifest.pool, *(prices.get(name, Model(name)) for name in additions.new_models)),
            threshold=StrongShare(stored.strong_share).threshold_in(table),
            threshold_table=tuple(table),
            training=_training_facts(manifest.training, additions, build.index),
            guarantee=None,  # it was for the old thresholds
        ),
        model=network.export(run_limits(network)),
        tokenizer_json=stored.encoder.tokenizer_json,
        gate=parity_gate(
            static_quality(network, stored.encoder, manifest.truncation), examples.queries, manifest.truncation
        ),
        reference=lambda *_: reference,
    )


@dataclass(frozen=True, kw_only=True)
class _Additions:
    """What is added to a stored router.

    Attributes:
        examples: the new records, over all models: those of the stored router first.
        new_models: models that the stored router does not know.
        unit: float32 (n, d), unit vectors of the queries in the index, then those of the new queries.
    """

    examples: Examples
    new_models: list[str]
    unit: Floats


def _additions(stored: StoredRouter, records: Sequence[Record]) -> _Additions:
    trainable = [record for record in records if record.split != "test"]
    if not trainable:
        raise InputError(f"no records to add: {len(records)} were given, and all are marked 'test'; expected others")
    seen = {name for record in trainable for name in record.models}
    new_models = sorted(seen.difference(stored.models))
    names = [*stored.models, *new_models]
    examples = _over_pool(examples_of(trainable, [name for name in names if name in seen], informative=False), names)
    encoded = encode_queries(examples.queries, stored.encoder, stored.manifest.truncation, stored.index.epsilon)
    return _Additions(examples=examples, new_models=new_models, unit=np.concatenate([stored.unit(), encoded.unit]))


@dataclass(frozen=True, kw_only=True)
class _Extension:
    """The network of the extended router.

    Attributes:
        network: over the queries in the new index.
        index: the new index, as the manifest keeps it.
        scores: of queries in the index, each computed without itself.
    """

    network: Network
    index: KernelIndex | RankingIndex
    scores: Floats


def _build(stored: StoredRouter, additions: _Additions) -> _Extension:
    if isinstance(stored.index, KernelIndex):
        return _kernel(stored, stored.index, additions)
    return _weighted_ranking(stored, stored.index, additions)


def _training_facts(
    before: Mapping[str, Any], additions: _Additions, index: KernelIndex | RankingIndex
) -> dict[str, Any]:
    """The manifest's account of the training, with one entry more under "extended"."""
    examples = additions.examples
    entry = {
        "at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "records": len(examples.preferences) + len(examples.performances),
        "queries": len(examples.queries),
        "new_models": additions.new_models,
        "data_fingerprint": data_fingerprint(examples),
    }
    return {
        **before,
        "records": before["records"] + entry["records"],
        "queries": before["queries"] + entry["queries"],
        "index": index.to_dict(),
        "extended": [*before.get("extended", []), entry],
    }


def _reference(stored: StoredRouter, network: Network, additions: _Additions, scores: Floats) -> dict[str, Any] | None:
    """The drift reference with the new queries in it; None: there are too few queries."""
    if len(scores) < LEAST_REFERENCE:
        return None
    manifest, unit, added = stored.manifest, additions.unit, len(additions.examples.queries)
    fold = np.random.default_rng(stored.seed).random(len(unit)) < _NOVELTY_SHARE
    novelties = held_out_novelty(unit, fold, stored.seed)
    vectors = network.sketch(unit)
    renewed = Reference.from_samples(scores, novelties, vectors, manifest.novelty_bound)
    before = None if manifest.reference is None else Reference.from_dict(manifest.reference).vectors
    if before is not None and added > 1:  # the index may hold a part of the old queries, rare kinds first
        share = added / (manifest.training["queries"] + added)
        renewed = replace(renewed, vectors=blended(before, Moments.of(vectors[-added:]), share))
    return renewed.as_dict()


def _over_pool(examples: Examples, names: Sequence[str]) -> Examples:
    """The examples over a whole pool, which may hold models that they do not mention."""
    column = np.asarray([names.index(name) for name in examples.models])
    parts = [replace(part, model=column[part.model]) for part in (examples.preferences, examples.performances)]
    return replace(examples, models=tuple(names), preferences=parts[0], performances=parts[1])


def _ranking(base: Array, examples: Examples, known: int) -> Array:
    """Utilities (m,) of all models: the known ones keep theirs, and the new ones are fitted against them."""
    ranking = np.concatenate([base, np.full(len(examples.models) - known, base.mean())])
    if len(ranking) == known:
        return ranking
    parts = (examples.preferences, examples.performances)

    def loss_and_gradient(free: Array) -> tuple[float, Array]:
        ranking[known:] = free
        utilities = np.broadcast_to(ranking, (len(examples.queries), len(ranking)))
        loss = _PRIOR / 2 * np.square(free - base.mean()).sum()
        gradient = np.zeros(len(ranking))
        for part in parts:
            loss += losses(part, utilities).sum()
            residual = part.weight * (sigmoid(logits(part, utilities)) - part.target)
            for column, sign in zip(part.model.T, (1, -1), strict=False):  # a performance has the first column only
                gradient += sign * np.bincount(column, weights=residual, minlength=len(ranking))
        return float(loss), gradient[known:] + _PRIOR * (free - base.mean())

    ranking[known:] = minimise(loss_and_gradient, ranking[known:].copy(), 100)
    return ranking


def _kernel(stored: StoredRouter, index: KernelIndex, additions: _Additions) -> _Extension:
    examples, unit = additions.examples, additions.unit
    if index.of_quality and len(examples.preferences):
        raise InputError("this router holds performance records; it cannot take preference records")
    base = np.asarray(index.base, np.float64)
    ranking = _ranking(np.log(base / (1 - base)) if index.of_quality else base, examples, len(stored.models))
    nothing = np.zeros((1, len(ranking)))  # no factors, one source
    added = evidence_of(examples, Factors(bias=ranking, query_factors=nothing, model_factors=nothing, offsets=nothing))
    if not index.of_quality and added.of_quality:  # scores for a router of utilities: information, not counts
        expected = sigmoid(ranking).astype(np.float32)
        added = replace(added, base=ranking, amount=added.amount * expected * (1 - expected), of_quality=False)
    width = len(additions.new_models)
    residual, amount = (
        np.concatenate([np.pad(stored.array(name), [(0, 0), (0, width)]), after])
        for name, after in (("residual", added.residual), ("amount", added.amount))
    )
    rows, scale = _index_rows(stored, unit, amount > 0)
    evidence = Evidence(
        base=added.base, residual=residual[rows] * scale, amount=amount[rows] * scale, of_quality=index.of_quality
    )
    index = replace(index, queries=len(rows), base=added.base.tolist())
    network = KernelNetwork(stored.encoder, unit[rows], evidence, index, stored.calibration)
    return _Extension(network=network, index=index, scores=_scores(stored, network, unit[rows]))


def _weighted_ranking(stored: StoredRouter, index: RankingIndex, additions: _Additions) -> _Extension:
    examples, unit = additions.examples, additions.unit
    if not len(examples.preferences):
        raise InputError("this router ranks by battles; it takes preference records only")
    battles = stored.array("counts")
    rating = Start.of(battles).rating[:-1].astype(np.float64)
    tiers = np.asarray(index.tiers)
    ranking = _ranking(rating[tiers], examples, len(stored.models))
    # A new model joins the tier whose rating is nearest its own.
    joined = np.abs(ranking[len(stored.models) :, None] - rating[None, :]).argmin(axis=1)
    tiers = np.concatenate([tiers, joined]).astype(np.int64)
    size = int(battles.shape[1] ** 0.5) - 1
    counts = np.concatenate([battles, battle_counts(examples.preferences, len(examples.queries), tiers, size)])
    answered = counts.reshape(len(counts), size + 1, size + 1).sum(axis=1)[:, :size] > 0
    rows, scale = _index_rows(stored, unit, answered)
    index = replace(index, queries=len(rows), tiers=tiers.tolist())
    network = WeightedRankingNetwork(stored.encoder, unit[rows], counts[rows] * scale, index, stored.calibration)
    return _Extension(network=network, index=index, scores=_scores(stored, network, unit[rows]))


def _index_rows(stored: StoredRouter, unit: Floats, answered: np.ndarray) -> tuple[np.ndarray, Floats]:
    """The queries that the new index keeps, int64 (k,), and their weights (k, 1)."""
    rows, weight = subsample(unit, answered, stored.index_size, stored.seed)
    return rows, weight[:, None]


def _scores(stored: StoredRouter, network: Network, unit: Floats) -> Floats:
    """Scores of some queries of the index, each computed without itself, given its unit vectors (n, d)."""
    chosen = np.random.default_rng(0).permutation(len(unit))[:_CALIBRATION_QUERIES]
    return stored.scores(network.left_out(unit, chosen))
