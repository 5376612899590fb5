"""What the recipes on a static encoder share: the plan, the encoder, and the end of the training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.records import Record
from ..routers.bundle import Truncation
from ..routers.decision import Floats, Model
from ..routers.errors import InputError
from .config import DIMENSIONS, GENERAL_ROUTER, NO_ROUTER, StaticRouterConfig
from .encoders.static import StaticEncoder, static_encoder
from .encoders.static_network import EncodedQueries, StaticNetwork, static_quality
from .examples import Examples
from .export.gate import parity_gate
from .fit.novelty import held_out_novelty
from .general.prior import GeneralGuess, GeneralPrior
from .libraries import require_training
from .pipeline import Findings, Job, Plan, finish, plan_training


def plan_static_training(
    records: Sequence[Record],
    out: str | Path,
    config: StaticRouterConfig,
    pool: Sequence[Model],
    *,
    kind: str,
    most_folds: int | None = None,
) -> Plan:
    """Check a run as `plan_training` does; a static router reads each distinct token of a query once."""
    require_training()
    truncation = Truncation(max_tokens=config.max_tokens, distinct=True)
    return plan_training(records, out, config, pool, kind=kind, truncation=truncation, most_folds=most_folds)


def encoder_of(config: StaticRouterConfig) -> StaticEncoder:
    """The static encoder that the settings name: the one that comes with routelearn, or one that is made and cached.

    Raises:
        InputError: there is no such encoder, or its vectors have another length than the settings say.
    """
    encoder = static_encoder(config.encoder, config.dimensions)
    if encoder.dimensions != config.dimensions != DIMENSIONS:
        raise InputError(
            f"dimensions is {config.dimensions}, but the vectors of {config.encoder} have {encoder.dimensions} and are "
            f"used as they are; expected {encoder.dimensions}, or no such setting"
        )
    return encoder


def load_encoder(job: Job, config: StaticRouterConfig) -> StaticEncoder:
    """As `encoder_of`, with a progress bar."""
    phase = job.log.phase("encoder", 1)
    encoder = encoder_of(config)
    job.log.advance(phase)
    return encoder


def check_general(config: StaticRouterConfig) -> None:
    """Refuse a general router that `guess_of` would refuse, before anything is written.

    Raises:
        InputError: see `guess_of`.
        BundleError: the bundle cannot be trusted.
    """
    if config.general not in {GENERAL_ROUTER, NO_ROUTER}:
        _prior(config, encoder_of(config).fingerprint)


def guess_of(
    config: StaticRouterConfig, encoded: EncodedQueries, examples: Examples, folds: list[npt.NDArray[np.bool_]]
) -> GeneralGuess | None:
    """What the general router of the settings expects; None: there is none, or the default one has another encoder.

    Raises:
        InputError: a router that was asked for is no general router, or reads by another encoder.
        BundleError: the bundle cannot be trusted.
    """
    prior = _prior(config, encoded.encoder.fingerprint)
    return None if prior is None else prior.guess(encoded, folds, examples, config.strong)


def _prior(config: StaticRouterConfig, fingerprint: str) -> GeneralPrior | None:
    if config.general == NO_ROUTER:
        return None
    prior = GeneralPrior.read(config.general)
    if prior.fingerprint == fingerprint:
        return prior
    if config.general == GENERAL_ROUTER:
        return None
    raise InputError(
        f"general is {config.general!r}, which reads queries by another encoder than {config.encoder!r}; expected a "
        f"general router that was trained with this encoder, or {NO_ROUTER!r}"
    )


def finish_static(
    job: Job,
    config: StaticRouterConfig,
    findings: Findings,
    network: StaticNetwork,
    encoded: EncodedQueries,
    *,
    unfitted: npt.NDArray[np.bool_] | None = None,
    scores: Floats | None = None,
    l2: float | None = None,
    index: dict[str, Any] | None = None,
    records: bytes | None = None,
    metadata: dict[str, str] | None = None,
) -> Path:
    """Publish the graph of a static network, behind the parity gate.

    Args:
        job: the run.
        config: its settings.
        findings: what held-out utilities say.
        network: what is exported.
        encoded: the queries of the job.
        unfitted: as in `finish`.
        scores: as in `finish`.
        l2: as in `finish`.
        index: what a similarity router needs to be extended.
        records: as in `publish`.
        metadata: of the graph.
    """
    by_network = static_quality(network, encoded.encoder, job.truncation)
    return finish(
        job,
        config,
        findings,
        model=network.export(metadata),
        tokenizer_json=encoded.encoder.tokenizer_json,
        gate=parity_gate(by_network, job.examples.queries),
        novelties=held_out_novelty(encoded.unit, job.folds[0], config.seed),
        unfitted=unfitted,
        scores=scores,
        l2=l2,
        encoder_fingerprint=encoded.encoder.fingerprint,
        index=index,
        records=records,
    )
