"""What `train` says at its end: the models it took, the threshold, what the router gained, and what to type next."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..data.readers import parse_source
from ..routers.bundle import VERIFIER, Manifest

#: Nats over all held-out outcomes: a smaller gain over the global ranking is within chance.
LEAST_GAIN = 4.0
#: With fewer held-out outcomes nobody can tell whether a router or a verifier is of use: a gain of 0.01 nats for each
#: outcome adds up to `LEAST_GAIN` over so many.
LEAST_JUDGED = 400
#: What `summary` suggests to route.
_QUERY = "Prove that the square root of 2 is irrational."


def summary(
    manifest: Manifest,
    path: str | Path,
    *,
    data: Sequence[str] = (),
    has_test_rows: bool = False,
    named_pair: bool = True,
) -> list[str]:
    """Plain sentences about a trained bundle, for the terminal.

    Args:
        manifest: the bundle's manifest, of a router or of a verifier.
        path: the bundle's folder, as the user wrote it.
        data: the training files, as the user wrote them.
        has_test_rows: the training files hold rows marked "test", which were left out.
        named_pair: the user named the strong and the weak model; else training took them from the records.

    Returns:
        One sentence or command a line; the last line is a command.

    Example:
        >>> from routelearn.routers.bundle import read_manifest
        >>> from routelearn.training.summary import summary
        >>> summary(read_manifest("router"), "router")[-1]
        "routelearn route router 'Prove that the square root of 2 is irrational.'"
    """
    if manifest.kind == VERIFIER:
        return _verifier_summary(manifest, path, data)
    pair = f"The strong model is {manifest.strong}, the weak model is {manifest.weak}"
    source = "" if named_pair else " (taken from the records: name others with --strong and --weak)"
    share = _share_at(manifest)
    return [
        f"{pair}{source}.",
        f"A query whose score is {manifest.threshold:.4f} or more goes to {manifest.strong}: {share:.0%} of the "
        "held-out queries.",
        _gain(manifest),
        *_next_for_router(path, data, has_test_rows),
    ]


def learned_little(metrics: Mapping[str, Any]) -> bool:
    """Whether the gain of a router over the global ranking is within chance, from its held-out metrics."""
    gain = metrics["log loss of the global ranking"] - metrics["log loss"]
    # Bundles of version 2 and older do not say how many outcomes were held out: there every gain counts.
    return bool(gain <= LEAST_GAIN / metrics.get("held-out outcomes", math.inf))


def no_better(manifest: Manifest) -> str | None:
    """Why a trained router or verifier is no better than none, with what to do; None: it is better, or nobody can tell.

    A router is no better when its held-out log loss is not below that of one ranking of the models for all queries. A
    verifier is no better when its held-out log loss is not below that of the same confidence for all answers, or when
    the 95 % interval of its AUROC is not above one half. Both are asked only on `LEAST_JUDGED` outcomes or more.

    Args:
        manifest: the bundle's manifest, of a router or of a verifier.

    Example:
        >>> from routelearn.routers.bundle import read_manifest
        >>> from routelearn.training.summary import no_better
        >>> no_better(read_manifest("router")) is None
        True
    """
    metrics = manifest.training["metrics"]
    if manifest.kind == VERIFIER:
        return _verifier_no_better(metrics)
    if metrics.get("held-out outcomes", 0) < LEAST_JUDGED or not learned_little(metrics):
        return None
    return (
        f"This router is no better than one model for all queries: on {metrics['held-out outcomes']:,} held-out "
        f"outcomes its log loss is {metrics['log loss']:.4f}, and {metrics['log loss of the global ranking']:.4f} "
        "without reading the queries. Do not route with it. Check that the labels belong to the queries and that "
        "strong and weak are the models you mean; then give more records, above all of queries that only one of the "
        "two models gets right, or train another recipe (routelearn train frozen reads more of a query than mf)."
    )


def _verifier_no_better(metrics: Mapping[str, Any]) -> str | None:
    held, good = metrics["held-out answers"], metrics.get("good enough", 0.5)
    if held < LEAST_JUDGED:
        return None
    loss, base = metrics["log loss"], metrics["log loss of the base rate"]
    # The standard error of the AUROC of a confidence that says nothing (Mann and Whitney 1947).
    error = math.sqrt((held + 1) / (12 * max(good * (1 - good) * held**2, 1)))
    low, high = metrics["AUROC"] - 1.96 * error, metrics["AUROC"] + 1.96 * error
    if loss < base and low > 0.5:
        return None
    return (
        f"This verifier is no better than the same confidence for every answer: on {held:,} held-out answers its log "
        f"loss is {loss:.4f}, and {base:.4f} for the same confidence; its AUROC is {metrics['AUROC']:.3f} "
        f"({low:.3f} to {high:.3f}), and 0.5 is chance. Do not run a cascade with it. Check that scores and responses "
        "belong together; then give more answers, above all bad ones, train longer (--epochs), or read more of an "
        "answer (--max-tokens)."
    )


def _gain(manifest: Manifest) -> str:
    """Whether the router predicts held-out outcomes better than one ranking of the models for all queries."""
    metrics = manifest.training["metrics"]
    loss, ranking = metrics["log loss"], metrics["log loss of the global ranking"]
    figures = f"on {metrics['held-out queries']:,} held-out queries its log loss is {loss:.4f}"
    if learned_little(metrics):
        return (
            f"The router learned little from the queries: {figures}, and {ranking:.4f} when every query gets the same "
            "ranking of the models. Expect it to choose about as well as one model for all."
        )
    return (
        f"The router predicts which model wins better than one ranking for all queries does: {figures} instead of "
        f"{ranking:.4f}, {1 - loss / ranking:.1%} less."
    )


def _next_for_router(path: str | Path, data: Sequence[str], has_test_rows: bool) -> list[str]:
    if data and has_test_rows:
        files = [parse_source(source)[0] for source in data]
        tested = [word for file in files for word in ("--data", file)]
        trained = [word for file in files for word in ("--train", file)]
        command = ["routelearn", "evaluate", str(path), *tested, "--split", "test", *trained]
        return ["To measure the router on the rows marked test, type:", shlex.join(command)]
    return ["To try the router, type:", shlex.join(["routelearn", "route", str(path), _QUERY])]


def _verifier_summary(manifest: Manifest, path: str | Path, data: Sequence[str]) -> list[str]:
    metrics = manifest.training["metrics"]
    models = ", ".join(model.name for model in manifest.pool)
    answers = f"the answers of {manifest.weak}" if manifest.weak else f"answers of {models}"
    replaced = f", and {manifest.strong} answers instead" if manifest.strong else ""
    loss, base = metrics["log loss"], metrics["log loss of the base rate"]
    better = "less" if loss < base else "not less"
    train = [word for source in data for word in ("--train", parse_source(source)[0])]
    command = [
        "routelearn",
        "cascade-plan",
        "--verifier",
        str(path),
        "--data",
        "TEST.parquet",
        "--prices",
        "PRICES.toml",
    ]
    return [
        f"The verifier judges {answers}.",
        f"An answer whose confidence is below {manifest.threshold:.4f} is escalated{replaced}: "
        f"{_share_at(manifest):.0%} of the held-out answers.",
        f"On {metrics['held-out answers']:,} held-out answers its log loss is {loss:.4f}; this is {better} than the "
        f"{base:.4f} of giving every answer the same confidence. A good answer gets a higher confidence than "
        f"a bad one in {metrics['AUROC']:.1%} of the pairs.",
        "To see what a cascade with it costs, on records that it has not seen, type:",
        shlex.join([*command, *train]),
    ]


def _share_at(manifest: Manifest) -> float:
    """The share of held-out queries, or answers, that the default threshold sends to the strong model."""
    shares, thresholds = zip(*sorted(manifest.threshold_table, key=lambda row: row[1]), strict=True)
    return float(np.interp(manifest.threshold, thresholds, shares))
