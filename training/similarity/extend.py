"""Add records and models to a similarity router that is already there, without training it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...data.records import Record
from ...monitoring.reference import LEAST_REFERENCE, Moments, Reference
from ...policies.threshold import StrongShare
from ...routers.base import sigmoid
from ...routers.decision import Floats, Model
from ...routers.errors import InputError
from ...routers.threshold_table import threshold_table
from ..encoders.static_network import static_quality
from ..examples import Examples, data_fingerprint
from ..export.gate import parity_gate
from ..export.publish import publish
from ..fit.drift_reference import blended, projection_of
from ..fit.factorization import Array, Factors, logits, losses
from ..fit.minimise import minimise
from ..fit.novelty import centroids_of, held_out_novelty
from ..general.new_abilities import with_new_models
from ..one_thread import one_thread
from .additions import Additions, additions_to
from .index import subsample
from .kernel import Evidence, KernelNetwork, evidence_of, kernel_sums
from .naming import extended_index
from .stored import KernelIndex, RankingIndex, StoredRouter
from .train import Network, run_limits
from .weighted_ranking import Start, WeightedRankingNetwork, battle_counts

#: Pseudo-records that hold a new model at the pool's average.
_PRIOR = 1.0
#: Queries of the index whose scores, each computed without itself, give the new thresholds.
_CALIBRATION_QUERIES = 2000
#: Share of the queries whose novelty, against the others, makes the new drift reference.
_NOVELTY_SHARE = 0.2


@one_thread()  # as when the bundle was trained
def extend_similarity(
    bundle: str | Path, records: Sequence[Record], out: str | Path | None = None, *, pool: Sequence[Model] = ()
) -> Path:
    """Add new records to the index of a similarity router, and models that they are the first to mention.

    Bandwidth, prior, tiers and calibration stay. The thresholds are taken again, from scores of queries of the index,
    each computed without itself. Records of a prompt that is in the index are added to its row. A new model starts at
    what its records say against the other models on the same queries, shrunk towards the pool's average.

    In a router of performance records the qualities of models without new records stay, unless the index is full and
    queries are left out of it. In a router of preferences all qualities move, because they are relative to the pool's
    average or shared by a tier. The manifest says which of these happened, under ``training.extended``, as "moved".

    A general part stays as it is, and so does the share of the general router; new models are placed in it by their
    records. The general router itself is not read.

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
    additions = additions_to(stored, records)
    build = _extension(stored, additions)
    network, examples, manifest = build.network, additions.examples, stored.manifest
    network.centroids = centroids_of(additions.unit, stored.seed)
    network.projection = stored.projection() or projection_of(additions.unit)
    table = threshold_table(build.scores)
    reference = _reference(stored, network, additions, build.scores)
    prices = {model.name: model for model in pool}
    names = extended_index(network, stored, examples, additions.place, build.rows)
    return publish(
        out or bundle,
        replace(
            manifest,
            pool=(*manifest.pool, *(prices.get(name, Model(name)) for name in additions.new_models)),
            threshold=StrongShare(stored.strong_share).threshold_in(table),
            threshold_table=tuple(table),
            training=_training_facts(manifest.training, additions, build),
            guarantee=None,  # it was for the old thresholds
        ),
        model=network.export(run_limits(network)),
        tokenizer_json=stored.encoder.tokenizer_json,
        gate=parity_gate(static_quality(network, stored.encoder, manifest.truncation), examples.queries),
        reference=lambda _: reference,
        records=names,
    )


@dataclass(frozen=True, kw_only=True)
class _Extension:
    """The network of the extended router.

    Attributes:
        network: over the queries in the new index.
        index: the new index, as the manifest keeps it.
        scores: of queries in the index, each computed without itself.
        abilities: of the models, on the scale of the general part; empty: there is none.
        rows: int64 (n,), the rows of the additions that the index keeps.
    """

    network: Network
    index: KernelIndex | RankingIndex
    scores: Floats
    abilities: dict[str, float]
    rows: npt.NDArray[np.int64]


def _extension(stored: StoredRouter, additions: Additions) -> _Extension:
    network: Network
    if isinstance(stored.index, KernelIndex):
        network, rows = _kernel(stored, stored.index, additions)
        centre = stored.index.centre
    else:
        network, rows = _weighted_ranking(stored, stored.index, additions)
        centre = True
    abilities = _extend_general(stored, additions, network, rows, centre)
    scores = _scores(stored, network, additions.unit[rows])
    return _Extension(network=network, index=network.index, scores=scores, abilities=abilities, rows=rows)


def _extend_general(
    stored: StoredRouter, additions: Additions, network: Network, rows: npt.NDArray[np.int64], centre: bool
) -> dict[str, float]:
    """Keep the general part of the router, which new models join, in its new network; return the abilities."""
    general, examples = stored.general(), additions.examples
    if general is None:
        return {}
    features = np.column_stack([additions.encoded, additions.length])
    parts = (examples.preferences, examples.performances)
    part, ability = with_new_models(general.part, general.ability, features, parts, len(examples.models), centre=centre)
    added = additions.length[additions.place >= additions.stored_rows]
    network.keep_general(part, np.concatenate([general.length, added])[rows])
    return dict(zip(examples.models, np.round(ability, 4).tolist(), strict=True))


def _training_facts(before: Mapping[str, Any], additions: Additions, build: _Extension) -> dict[str, Any]:
    """The manifest's account of the training, with one entry more under "extended"."""
    examples = additions.examples
    entry = {
        "at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "records": len(examples.preferences) + len(examples.performances),
        "queries": len(examples.queries),
        "merged_queries": additions.merged,
        "new_models": additions.new_models,
        "moved": _moved(additions, build.index),
        "data_fingerprint": data_fingerprint(examples),
    }
    general = {"general": {**before["general"], "abilities": build.abilities}} if build.abilities else {}
    return {
        **before,
        **general,
        "records": before["records"] + entry["records"],
        "queries": before["queries"] + entry["queries"] - additions.merged,
        "index": build.index.to_dict(),
        "extended": [*before.get("extended", []), entry],
    }


def _moved(additions: Additions, index: KernelIndex | RankingIndex) -> str:
    """Why the qualities of models without new records moved, in words; empty: they did not."""
    reasons = []
    if isinstance(index, RankingIndex):
        reasons.append("a rating belongs to a tier of models, and the ratings of a query belong together")
    elif index.centre:
        reasons.append("qualities are relative to the pool's average (win rates between such models stay)")
    if index.queries < len(additions.unit):
        reasons.append(f"the index is full: it keeps {index.queries:,} of {len(additions.unit):,} queries")
    return "; ".join(reasons)


def _reference(stored: StoredRouter, network: Network, additions: Additions, scores: Floats) -> dict[str, Any] | None:
    """The drift reference with the new queries in it; None: there are too few queries."""
    if len(scores) < LEAST_REFERENCE:
        return None
    manifest, unit = stored.manifest, additions.unit
    added = len(additions.examples.queries) - additions.merged
    fold = np.random.default_rng(stored.seed).random(len(unit)) < _NOVELTY_SHARE
    novelties = held_out_novelty(unit, fold, stored.seed)
    vectors = network.sketch(unit)
    renewed = Reference.from_samples(scores, novelties, vectors, manifest.novelty_bound)
    before = None if manifest.reference is None else Reference.from_dict(manifest.reference).vectors
    # The index may hold a part of the old queries, rare kinds first.
    if before is not None and len(additions.encoded) > 1:
        share = len(additions.encoded) / (manifest.training["queries"] + added)
        of_added = network.sketch(additions.encoded)
        renewed = replace(renewed, vectors=blended(before, Moments.of(of_added), share))
    return renewed.as_dict()


def _ranking(base: Array, examples: Examples, local: Array) -> Array:
    """Utilities (m,) of all models: the known ones keep theirs, and the new ones are fitted against them.

    A new model is compared with the known models on the queries of its records: who was only asked hard queries is not
    taken for a weak model.

    Args:
        base: float64 (known,), utilities of the known models for any query.
        examples: the new records, over all models.
        local: float64 (n, known), utilities of the known models for each query of the new records.
    """
    known, models = len(base), len(examples.models)
    if models == known:
        return base.copy()
    parts = (examples.preferences, examples.performances)
    harder = (local - base).mean(axis=1, keepdims=True)  # how much better than usual the pool does on a query

    def loss_and_gradient(free: Array) -> tuple[float, Array]:
        utilities = np.concatenate([local, free + harder], axis=1)
        loss = _PRIOR / 2 * np.square(free - base.mean()).sum()
        gradient = np.zeros(models)
        for part in parts:
            loss += losses(part, utilities).sum()
            residual = part.weight * (sigmoid(logits(part, utilities)) - part.target)
            for column, sign in zip(part.model.T, (1, -1), strict=False):  # a performance has the first column only
                gradient += sign * np.bincount(column, weights=residual, minlength=models)
        return float(loss), gradient[known:] + _PRIOR * (free - base.mean())

    start = np.full(models - known, base.mean())
    return np.concatenate([base, minimise(loss_and_gradient, start, 100)])


def _kernel(
    stored: StoredRouter, index: KernelIndex, additions: Additions
) -> tuple[KernelNetwork, npt.NDArray[np.int64]]:
    """The network over the new index, and the rows of `additions.unit` in it."""
    examples, unit = additions.examples, additions.unit
    if index.of_quality and len(examples.preferences):
        raise InputError("this router holds performance records; it cannot take preference records")
    base = np.asarray(index.base, np.float64)
    level = np.log(base / (1 - base)) if index.of_quality else base
    ranking = _ranking(level, examples, _known_utilities(stored, index, additions))
    nothing = np.zeros((1, len(ranking)))  # no factors, one source
    added = evidence_of(examples, Factors(bias=ranking, query_factors=nothing, model_factors=nothing, offsets=nothing))
    if not index.of_quality and added.of_quality:  # scores for a router of utilities: information, not counts
        expected = sigmoid(ranking).astype(np.float32)
        added = replace(added, base=ranking, amount=added.amount * expected * (1 - expected), of_quality=False)
    residual, amount = (
        additions.summed(stored.array(name), after)
        for name, after in (("residual", added.residual), ("amount", added.amount))
    )
    rows, scale = _index_rows(stored, unit, amount > 0)
    evidence = Evidence(
        base=added.base, residual=residual[rows] * scale, amount=amount[rows] * scale, of_quality=index.of_quality
    )
    index = replace(index, queries=len(rows), base=added.base.tolist())
    return KernelNetwork(stored.encoder, unit[rows], evidence, index, stored.calibration), rows


def _known_utilities(stored: StoredRouter, index: KernelIndex, additions: Additions) -> Array:
    """Utilities of the known models, float64 (k, known), for the queries of the new records, before these are added."""
    residual, amount = (stored.array(name) for name in ("residual", "amount"))
    known = additions.unit[: additions.stored_rows]
    sums = kernel_sums(additions.encoded, known, residual, amount, [index.bandwidth])[0]
    base = np.asarray(index.base, np.float64)
    return Evidence(base, residual, amount, index.of_quality).utilities(*sums, index.prior).astype(np.float64)


def _weighted_ranking(
    stored: StoredRouter, index: RankingIndex, additions: Additions
) -> tuple[WeightedRankingNetwork, npt.NDArray[np.int64]]:
    """The network over the new index, and the rows of `additions.unit` in it."""
    examples, unit = additions.examples, additions.unit
    if not len(examples.preferences):
        raise InputError("this router ranks by battles; it takes preference records only")
    battles = stored.array("counts")
    rating = Start.of(battles).rating[:-1].astype(np.float64)
    tiers = np.asarray(index.tiers)
    level = rating[tiers]
    ranking = _ranking(level, examples, np.broadcast_to(level, (len(examples.queries), len(level))))
    # A new model joins the tier whose rating is nearest its own.
    joined = np.abs(ranking[len(stored.models) :, None] - rating[None, :]).argmin(axis=1)
    tiers = np.concatenate([tiers, joined]).astype(np.int64)
    size = int(battles.shape[1] ** 0.5) - 1
    counts = additions.summed(battles, battle_counts(examples.preferences, len(examples.queries), tiers, size))
    answered = counts.reshape(len(counts), size + 1, size + 1).sum(axis=1)[:, :size] > 0
    rows, scale = _index_rows(stored, unit, answered)
    index = replace(index, queries=len(rows), tiers=tiers.tolist())
    network = WeightedRankingNetwork(stored.encoder, unit[rows], counts[rows] * scale, index, stored.calibration)
    return network, rows


def _index_rows(stored: StoredRouter, unit: Floats, answered: np.ndarray) -> tuple[np.ndarray, Floats]:
    """The queries that the new index keeps, int64 (k,), and their weights (k, 1)."""
    rows, weight = subsample(unit, answered, stored.index_size, stored.seed)
    return rows, weight[:, None]


def _scores(stored: StoredRouter, network: Network, unit: Floats) -> Floats:
    """Scores of some queries of the index, each computed without itself, given its unit vectors (n, d)."""
    chosen = np.random.default_rng(0).permutation(len(unit))[:_CALIBRATION_QUERIES]
    return stored.scores(network.left_out(unit, chosen))
