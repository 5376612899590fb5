"""Adapt a router to labels of one's own: a general router to its models and queries, any other router to new models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..data.records import Record, record_key
from ..routers.bundle import GENERAL, read_manifest
from ..routers.decision import Model
from ..routers.errors import InputError
from .matrix_factorization.config import MatrixFactorizationConfig
from .matrix_factorization.train import train_matrix_factorization
from .new_models import place_new_models

#: Fewest labels: with fewer the general router alone is as good, and nothing can be held out.
LEAST_LABELS = 20


def adapt(
    router: str | Path,
    records: Sequence[Record],
    out: str | Path,
    config: MatrixFactorizationConfig | None = None,
    *,
    pool: Sequence[Model] = (),
    progress: bool = False,
) -> Path:
    """Adapt a router to labels.

    A general router becomes a router of the models of the records, as `train_matrix_factorization` makes it with that
    general router: the labels place the models and correct the gain, and the general router counts the less, the more
    labels there are. A router with models of its own gets the new models of the records; see `place_new_models`.

    Args:
        router: "general", or the folder of a bundle.
        records: 20 labels or more.
        out: the folder of the new bundle.
        config: settings, for a general router alone; its `general` is replaced.
        pool: models with prices.
        progress: show a progress bar on stderr.

    Returns:
        The folder.

    Raises:
        InputError: there are too few labels, settings are given for a router that is not trained again, or see
            `train_matrix_factorization` and `place_new_models`.
        BundleError: the bundle cannot be trusted.

    Example:
        >>> from routelearn.data import read_records
        >>> from routelearn.training import MatrixFactorizationConfig, adapt
        >>> labels = read_records("records.jsonl").records[:400]
        >>> pair = MatrixFactorizationConfig(strong="sim-max", weak="sim-small")
        >>> adapt("general", labels, "mine", pair).name
        'mine'
    """
    usable = [record for record in records if record.split != "test"]
    if len(usable) < LEAST_LABELS:
        raise InputError(
            f"{len(usable)} labels are too few; expected {LEAST_LABELS} or more, beside those marked 'test'"
        )
    if read_manifest(router).kind != GENERAL:
        if config is not None:
            raise InputError(f"settings have no effect on {router}, which is not trained again; expected none")
        return place_new_models(router, records, out, pool=pool)
    config = replace(config or MatrixFactorizationConfig(), general=str(router))
    prompts = len({record_key(record) for record in usable})
    folds = max(2, min(config.folds, prompts // 2))
    return train_matrix_factorization(records, out, replace(config, folds=folds), pool=pool, progress=progress)
