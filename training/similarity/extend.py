"""Add records and models to a similarity router that is already there: no retraining."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...data.records import Record
from ...monitoring.reference import LEAST_REFERENCE, Moments, Reference
from ...policies.threshold import StrongShare
from ...routers.base import Model, win_rate
from ...routers.bundle import MODEL, TOKENIZER, Manifest, read_bundle
from ...routers.errors import InputError
from ...routers.threshold_table import threshold_table
from ..encoders.static import StaticEncoder
from ..encoders.static_network import StaticNetwork, reference_quality, token_sums
from ..examples import Examples, data_fingerprint, examples_of
from ..export.gate import parity_gate
from ..export.publish import Description, publish
from ..export.to_onnx import stored_arrays
from ..fit.drift_reference import blended, projection_of
from ..fit.factorization import Batch, Factors
from ..fit.novelty import centroids_of, held_out_novelty
from .index import subsample
from .kernel import Evidence, KernelNetwork, evidence_of
from .train import KINDS, export_similarity
from .weighted_ranking import Start, WeightedRankingNetwork, battle_counts

#: Pseudo-records that hold a new model at the pool's average.
_PRIOR = 1.0
#: Queries of the index whose leave-one-out scores give the new thresholds.
_CALIBRATION_QUERIES = 2000
#: Share of the queries whose novelty, against the others, makes the new reference.
_NOVELTY_SHARE = 0.2


def extend_similarity(
    bundle: str | Path, records: Sequence[Record], out: str | Path | None = None, *, pool: Sequence[Model] = ()
) -> Path:
    """Add new records to the index of a similarity router, and models that they are the first to mention.

    Bandwidth, prior, tiers and calibration stay; the thresholds are taken anew, from leave-one-out scores. A new
    model starts at what its records say against the global ranking of the others.

    Args:
        bundle: a similarity bundle.
        records: new records; those marked "test" are left out.
        out: where the result goes; None: in place, renamed over the old bundle when all is well.
        pool: prices of new models, by name.

    Returns:
        The folder.

    Raises:
        InputError: not a similarity bundle, no records, or records of a kind that it does not hold.
        BundleError: the bundle cannot be trusted.
        ExportError: the exported graph does not reproduce the network.
    """
    manifest, contents = read_bundle(bundle)
    if manifest.kind not in KINDS.values():
        raise InputError(f"{bundle} is a {manifest.kind} router; only a similarity router can be extended")
    arrays = stored_arrays(contents[MODEL])
    index = manifest.training["index"]
    names = [model.name for model in manifest.pool]
    trainable = [record for record in records if record.split != "test"]
    new = [name for name in sorted({n for record in trainable for n in record.models}) if name not in names]
    if not trainable:
        raise InputError(f"no records to add ({len(records)} are marked 'test')")
    seen = {n for record in trainable for n in record.models}
    mentioned = [name for name in [*names, *new] if name in seen]
    examples = _over_pool(examples_of(trainable, mentioned, informative=False), [*names, *new])
    encoder = StaticEncoder(
        arrays["table"].copy(), index["scale"], contents[TOKENIZER], manifest.training["encoder_fingerprint"]
    )
    with torch.no_grad():
        unit, _ = StaticNetwork(encoder, index["epsilon"]).features(
            token_sums(examples.queries, encoder, manifest.truncation)
        )
    old = torch.from_numpy(arrays["vectors"].T.astype(np.float32) * arrays["vector_scale"][:, None])
    unit = torch.cat([torch.nn.functional.normalize(old, dim=1), unit])
    rebuild = _kernel if manifest.kind == KINDS["kernel"] else _weighted_ranking
    network, settings, scores = rebuild(manifest, arrays, examples, encoder, unit, len(names))
    seed = manifest.training["config"]["seed"]
    network.centroids = torch.from_numpy(centroids_of(unit.numpy(), seed))
    projection = arrays.get("projection")  # bundles of version 1 have none
    if projection is None:
        network.projection, network.projection_offset = projection_of(unit)
    else:
        network.projection = torch.from_numpy(projection.copy())
        network.projection_offset = torch.from_numpy(arrays["projection_offset"].copy())
    table = threshold_table(scores)
    reference = _reference(manifest, network, unit, len(examples.queries), scores)
    prices = {model.name: model for model in pool}
    entry = {
        "at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "records": len(examples.preferences) + len(examples.performances),
        "queries": len(examples.queries),
        "new_models": new,
        "data_fingerprint": data_fingerprint(examples),
    }
    training = {
        **manifest.training,
        "records": manifest.training["records"] + entry["records"],
        "queries": manifest.training["queries"] + entry["queries"],
        "index": {**index, **settings, "queries": int(network.vectors.shape[1])},
        "extended": [*manifest.training.get("extended", []), entry],
    }
    return publish(
        out or bundle,
        Description(
            kind=manifest.kind,
            pool=[*manifest.pool, *(prices.get(name, Model(name)) for name in new)],
            strong=manifest.strong,
            weak=manifest.weak,
            link=manifest.link,  # type: ignore[arg-type]
            truncation=manifest.truncation,
            calibration=manifest.calibration,
            threshold=StrongShare(manifest.training["config"]["strong_share"]).threshold_in(table),
            threshold_table=table,
            novelty_bound=manifest.novelty_bound,
            training=training,
        ),
        model=export_similarity(network),
        tokenizer_json=contents[TOKENIZER],
        gate=parity_gate(
            reference_quality(network, encoder, manifest.truncation), examples.queries, manifest.truncation
        ),
        reference=lambda *_: reference,
    )


def _reference(
    manifest: Manifest,
    network: KernelNetwork | WeightedRankingNetwork,
    unit: torch.Tensor,
    added: int,
    scores: np.ndarray,
) -> dict[str, Any] | None:
    """What traffic looks like with the new queries, the last `added` of the unit vectors; None: too few queries."""
    if len(scores) < LEAST_REFERENCE:
        return None
    fold = np.random.default_rng(manifest.training["config"]["seed"]).random(len(unit)) < _NOVELTY_SHARE
    novelties = held_out_novelty(unit.numpy(), fold, manifest.training["config"]["seed"])
    vectors = network.sketch(unit).numpy()
    renewed = Reference.from_samples(scores, novelties, vectors, manifest.novelty_bound)
    before = None if manifest.reference is None else Reference.from_dict(manifest.reference).vectors
    if before is not None and added > 1:  # the index may hold a part of the old queries, rare kinds first
        share = added / (manifest.training["queries"] + added)
        renewed = replace(renewed, vectors=blended(before, Moments.of(vectors[-added:]), share))
    return renewed.as_dict()


def _over_pool(examples: Examples, names: Sequence[str]) -> Examples:
    """The examples with the columns of a whole pool, also of models that they do not mention."""
    column = np.asarray([names.index(name) for name in examples.models])
    parts = [replace(part, model=column[part.model]) for part in (examples.preferences, examples.performances)]
    return replace(examples, models=tuple(names), preferences=parts[0], performances=parts[1])


def _ranking(base: torch.Tensor, examples: Examples, known: int) -> torch.Tensor:
    """Utilities (m,) of all models: those known stay as they are, the new ones are fitted against them."""
    ranking = torch.zeros(len(examples.models), dtype=torch.float64)
    ranking[:known] = base
    if len(examples.models) == known:
        return ranking
    batches = [Batch.of(part) for part in (examples.preferences, examples.performances) if len(part)]
    free = torch.full((len(examples.models) - known,), float(base.mean()), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([free], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        utilities = torch.cat([ranking[:known], free]).expand(len(examples.queries), -1)
        loss = _PRIOR / 2 * (free - base.mean()).square().sum()
        for batch in batches:
            loss = loss + batch.losses(utilities).sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    ranking[known:] = free.detach()
    return ranking


def _kernel(
    manifest: Manifest,
    arrays: dict[str, Any],
    examples: Examples,
    encoder: StaticEncoder,
    unit: torch.Tensor,
    known: int,
) -> tuple[KernelNetwork, dict[str, object], np.ndarray]:
    index = manifest.training["index"]
    if index["of_quality"] and len(examples.preferences):
        raise InputError("this router holds performance records; it cannot take preference records")
    base = torch.tensor(index["base"], dtype=torch.float64)
    ranking = _ranking(torch.logit(base) if index["of_quality"] else base, examples, known)
    nothing = torch.zeros(1, len(ranking), dtype=torch.float64)  # no factors, one source
    added = evidence_of(examples, Factors(ranking, nothing, nothing, nothing))
    if not index["of_quality"] and added.of_quality:  # scores for a router of utilities: information, not counts
        expected = torch.sigmoid(ranking).float()
        added = replace(added, base=ranking, amount=added.amount * expected * (1 - expected), of_quality=False)
    stored = [torch.from_numpy(arrays[name].astype(np.float32)) for name in ("residual", "amount")]
    width = len(ranking) - known
    residual, amount = (
        torch.cat([torch.nn.functional.pad(before, [0, width]), after])
        for before, after in zip(stored, (added.residual, added.amount), strict=True)
    )
    config = manifest.training["config"]
    rows, weight = subsample(unit.numpy(), (amount > 0).numpy(), config["index_size"], config["seed"])
    scale = torch.from_numpy(weight).unsqueeze(1)
    evidence = Evidence(added.base, residual[rows] * scale, amount[rows] * scale, index["of_quality"])
    network = KernelNetwork(encoder, index["epsilon"], unit[rows], evidence).eval()
    network.bandwidth, network.prior, network.centre = index["bandwidth"], index["prior"], index["centre"]
    network.slope.fill_(manifest.calibration["slope"])
    network.intercept.fill_(manifest.calibration["intercept"])
    chosen = np.random.default_rng(0).permutation(len(rows))[:_CALIBRATION_QUERIES]
    return network, {"base": added.base.tolist()}, _scores(manifest, network.left_out(unit[rows], chosen))


def _weighted_ranking(
    manifest: Manifest,
    arrays: dict[str, Any],
    examples: Examples,
    encoder: StaticEncoder,
    unit: torch.Tensor,
    known: int,
) -> tuple[WeightedRankingNetwork, dict[str, object], np.ndarray]:
    if not len(examples.preferences):
        raise InputError("this router ranks by battles; it takes preference records only")
    index = manifest.training["index"]
    stored = torch.from_numpy(arrays["counts"].astype(np.float32))
    rating = Start.of(stored).rating[:-1].double()
    tiers = np.asarray(index["tiers"])
    ranking = _ranking(rating[torch.from_numpy(tiers)], examples, known)
    # A new model joins the tier whose rating is nearest its own.
    joined = (ranking[known:, None] - rating[None, :]).abs().argmin(dim=1).numpy()
    tiers = np.concatenate([tiers, joined]).astype(np.int64)
    size = int(stored.shape[1] ** 0.5) - 1
    counts = torch.cat([stored, battle_counts(examples.preferences, len(examples.queries), tiers, size)])
    config = manifest.training["config"]
    answered = (counts.reshape(len(counts), size + 1, size + 1).sum(dim=1)[:, :size] > 0).numpy()
    rows, weight = subsample(unit.numpy(), answered, config["index_size"], config["seed"])
    counts = counts[rows] * torch.from_numpy(weight).unsqueeze(1)
    network = WeightedRankingNetwork(encoder, index["epsilon"], unit[rows], counts, tiers, index["steps"]).eval()
    network.slope.fill_(manifest.calibration["slope"])
    chosen = np.random.default_rng(0).permutation(len(rows))[:_CALIBRATION_QUERIES]
    return network, {"tiers": tiers.tolist()}, _scores(manifest, network.left_out(unit[rows], chosen))


def _scores(manifest: Manifest, quality: torch.Tensor) -> np.ndarray:
    names = [model.name for model in manifest.pool]
    strong, weak = names.index(manifest.strong), names.index(manifest.weak)
    found = quality.float().numpy()
    return win_rate(found[:, strong], found[:, weak], manifest.link)  # type: ignore[arg-type]
