"""The general recipe: one router for all models, from the records of many sources."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...data.records import Record
from ...routers.bundle import GENERAL, Manifest
from ...routers.decision import Model
from ...routers.errors import InputError
from ...routers.placement import pair_thresholds
from ..examples import Examples, examples_of, record_facts
from ..export.publish import publish
from ..fit.drift_reference import projection_of
from ..fit.factorization import losses
from ..fit.minimise import Array
from ..fit.novelty import centroids_of, held_out_novelty, novelty_bound
from ..libraries import require_training
from ..log import TrainingLog, training_folder
from ..one_thread import one_thread
from ..pipeline import trainable_records
from .config import GeneralConfig
from .familiarity import QUERIES_PER_SOURCE, Background
from .features import LinearHead, TextFeatures
from .item_response import ItemResponse, Penalties, fit_item_response, source_weights
from .static_features import StaticFeatures

#: The items that stand for the traffic in the bundle.
ITEMS = 256
#: Share of the queries that are held out to measure the log loss.
_HELD_OUT = 0.2
#: Quantiles of the abilities of all models that stand for a strong and for a weak model of which nothing is known.
STRONG_QUANTILE, WEAK_QUANTILE = 0.95, 0.5
#: The model that arena leaderboards are anchored at, by its name in the table of abilities, and its rating.
ANCHOR, ANCHOR_RATING = "mixtral-8x7b-v0.1", 1114.0


@dataclass(frozen=True)
class GeneralPlan:
    """A run that was checked and has not begun.

    Attributes:
        examples: what to learn from.
        out: folder of the bundle.
        records_read: number of records before any was left out.
        folds: bool (n,) of the queries that are held out to measure the log loss; one array.
        reader: the encoder of the queries.
    """

    examples: Examples
    out: Path
    records_read: int
    folds: list[npt.NDArray[np.bool_]]
    reader: TextFeatures


def train_general(
    records: Sequence[Record],
    out: str | Path,
    config: GeneralConfig | None = None,
    *,
    pool: Sequence[Model] = (),
    progress: bool = False,
) -> Path:
    """Train a general router on the records of many sources, and export it.

    Args:
        records: preference and performance records; their `source` names the source, their models link the sources.
        out: folder of the bundle; the log goes to ``<out>.training/``.
        config: settings.
        pool: has no effect, because models are placed when the router is loaded.
        progress: show the progress on stderr.

    Returns:
        The bundle's folder, for `routelearn.load`.

    Raises:
        InputError: see `check_general`.
        ExportError: the exported graph does not reproduce the network, or int8 decides otherwise.
        MissingExtraError: a library of the extra `transformers` is missing, and the settings ask for a transformer.
    """
    config = config or GeneralConfig()
    plan = check_general(records, out, config, pool=pool)
    with TrainingLog(training_folder(plan.out), show_progress=progress) as log, one_thread():
        return _train(plan, config, log)


def check_general(
    records: Sequence[Record], out: str | Path, config: GeneralConfig | None = None, *, pool: Sequence[Model] = ()
) -> GeneralPlan:
    """Refuse whatever `train_general` refuses before it fits; writes nothing.

    Raises:
        InputError: there is nothing to learn from, a source in `traffic` is in no record or has preferences only, or
            `out` cannot be written or holds something else; or the encoder cannot be loaded, or has fewer layers or
            positions than the settings say.
        MissingExtraError: a library of the extra `transformers` is missing, and the settings ask for a transformer.
    """
    del pool
    config = config or GeneralConfig()
    require_training("train" if config.layers is None else "transformers")
    examples = examples_of(trainable_records(records, Path(out)))
    if not len(examples.performances):
        raise InputError(
            "there are preference records only; expected performance records, which tell how hard a query is"
        )
    graded = {examples.sources[i] for i in np.unique(examples.performances.source).tolist()}
    missing = sorted(set(config.traffic or ()) - graded)
    if missing:
        raise InputError(
            f"traffic names {missing}; expected sources with performance records, among {sorted(map(str, graded))}"
        )
    held_out = held_out_queries(examples, config.seed)
    return GeneralPlan(examples, Path(out), len(records), [held_out], text_features(config))


def text_features(config: GeneralConfig) -> TextFeatures:
    """The encoder of the settings."""
    if config.layers is None:
        return StaticFeatures(config)
    from .transformer_features import TransformerFeatures  # needs torch

    return TransformerFeatures(config)


def _train(plan: GeneralPlan, config: GeneralConfig, log: TrainingLog) -> Path:
    examples, reader, held_out = plan.examples, plan.reader, plan.folds[0]
    phase = log.phase("vectors", len(examples.queries), "query")
    features, unit = reader.learn(examples.queries, lambda count: log.advance(phase, count))
    log.advance(phase, done=True)
    metrics = _held_out_metrics(plan, config, features, log)
    phase = log.phase("fit", 1)
    fit = fit_examples(features, examples, config)
    log.advance(phase)
    items, shrink, level = traffic_items(fit, features, examples, config)
    # The level of the traffic is not known: it is integrated over, which flattens slope and intercept by one factor.
    weight = shrink * np.stack([fit.slope, fit.intercept], axis=1)
    bias = shrink * np.array([1.0, level])
    general = general_field(fit, items, examples)
    if config.layers is None:  # what a trained static router needs to tell familiar queries from others
        rows = queries_of_each_source(examples, QUERIES_PER_SOURCE, config.seed)
        general["background"] = Background.of(unit[rows]).to_dict()
    pair = np.array([general["strong"], general["weak"]])
    head = LinearHead(weight, bias, pair, centroids_of(unit, config.seed), projection_of(features))
    exported = reader.export(head, examples.queries, held_out, config.seed)
    log.step(phase="done", **metrics)
    manifest = Manifest(
        kind=GENERAL,
        pool=(Model("strong"), Model("weak")),
        strong="strong",
        weak="weak",
        link="difference",
        truncation=reader.truncation,
        calibration={"method": "none"},
        novelty_bound=novelty_bound(held_out_novelty(unit, held_out, config.seed)),
        golden_tolerance=exported.golden_tolerance,
        training={
            "config": {name: value for name, value in asdict(config).items() if name != "vectors"},  # a local path
            "encoder_fingerprint": reader.fingerprint,
            "metrics": metrics,
            **record_facts(examples, plan.records_read),
        },
        general=general,
        **pair_thresholds(items, pair, "difference"),
    )
    return publish(
        plan.out,
        manifest,
        model=exported.model,
        tokenizer_json=reader.tokenizer_json,
        gate=exported.gate,
        reference=lambda router: None,
    )


def fit_examples(
    features: Array, examples: Examples, config: GeneralConfig, kept: npt.NDArray[np.bool_] | None = None
) -> ItemResponse:
    """Fit the model to the outcomes of the queries that bool (n,) keeps; None keeps all."""
    parts = [examples.performances, examples.preferences]
    if kept is not None:
        parts = [part.of_queries(kept) for part in parts]
    sources = len(examples.sources)
    return fit_item_response(
        features,
        parts,
        source_weights(parts, sources, config.source_queries, config.preference_weight),
        models=len(examples.models),
        sources=sources,
        penalties=Penalties(config.difficulty_l2, config.discrimination_l2, config.level_l2, config.ability_l2),
    )


def traffic_items(
    fit: ItemResponse, features: Array, examples: Examples, config: GeneralConfig
) -> tuple[Array, float, float]:
    """What the traffic of a user looks like to the router, before the user has a label.

    The level of the traffic is not known. It is taken to be normal, with the mean level of the sources of `traffic` and
    the variance of the levels of all sources. The mean of a sigmoid over a normal logit is about a flatter sigmoid
    (MacKay 1992, "The evidence framework applied to classification networks", equation 10).

    Returns:
        Items (k, 2) of queries of all sources in equal parts, the factor of slopes and intercepts, and the mean level.
    """
    graded = np.unique(examples.performances.source)
    chosen = [i for i in graded.tolist() if config.traffic is None or examples.sources[i] in config.traffic]
    level = float(fit.level[chosen].mean())
    shrink = 1 / math.sqrt(1 + math.pi / 8 * float(fit.level[graded].var()))
    rows = queries_of_each_source(examples, -(-ITEMS // len(examples.sources)), config.seed)
    items = fit.items(features[rows])
    items[:, 1] += level
    return shrink * items, shrink, level


def queries_of_each_source(examples: Examples, count: int, seed: int) -> list[int]:
    """Rows of queries that stand for the traffic of all sources in equal parts: at most so many of each source."""
    random = np.random.default_rng(seed)
    rows: list[int] = []
    for source in range(len(examples.sources)):
        parts = [part.query[part.source == source] for part in (examples.performances, examples.preferences)]
        rows += random.permutation(np.unique(np.concatenate(parts)))[:count].tolist()
    return rows


def general_field(fit: ItemResponse, items: Array, examples: Examples) -> dict[str, Any]:
    """The field `general` of the manifest: how models are placed."""
    strong, weak = np.quantile(fit.ability, [STRONG_QUANTILE, WEAK_QUANTILE]).tolist()
    field: dict[str, Any] = {
        "abilities": {name: round(value, 4) for name, value in zip(examples.models, fit.ability.tolist(), strict=True)},
        "strong": round(strong, 4),
        "weak": round(weak, 4),
        "items": np.round(items, 5).tolist(),
    }
    judged = np.unique(examples.preferences.source)
    if len(judged) and ANCHOR in field["abilities"]:
        # An arena rating is 400 / ln 10 times a Bradley-Terry utility.
        points = 400 / math.log(10) * float(fit.scale[judged].mean())
        field["rating"] = {"points": points, "origin": ANCHOR_RATING - points * field["abilities"][ANCHOR]}
    return field


def held_out_queries(examples: Examples, seed: int) -> npt.NDArray[np.bool_]:
    """The queries that are held out to measure the log loss: bool (n,)."""
    held_out = np.zeros(len(examples.queries), np.bool_)
    order = np.random.default_rng(seed).permutation(len(held_out))
    held_out[order[: max(1, round(_HELD_OUT * len(order)))]] = True
    return held_out


def held_out_losses(
    features: Array, examples: Examples, config: GeneralConfig, held_out: npt.NDArray[np.bool_]
) -> Array:
    """Weighted log loss (nats) of each performance (k,) of held-out queries, by a fit to the other queries."""
    fit = fit_examples(features, examples, config, ~held_out)
    items = fit.items(features)
    utilities = items[:, :1] * fit.ability + items[:, 1:]
    levels = np.repeat(fit.level[:, None], len(examples.models), axis=1)
    return losses(examples.performances.of_queries(held_out), utilities, levels)


def _held_out_metrics(plan: GeneralPlan, config: GeneralConfig, features: Array, log: TrainingLog) -> dict[str, Any]:
    """The log loss on held-out queries of known sources, beside one that knows models and sources alone."""
    examples, held_out = plan.examples, plan.folds[0]
    phase = log.phase("held-out queries", 2)
    outcomes = examples.performances.of_queries(held_out)
    found = {}
    for name, columns in (("log loss", features), ("log loss of the global ranking", features[:, :0])):
        lost = held_out_losses(columns, examples, config, held_out)
        found[name] = float(lost.sum() / outcomes.weight.sum())
        log.advance(phase)
    return {"held-out queries": int(held_out.sum()), "held-out outcomes": len(outcomes), **found}
