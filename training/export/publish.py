"""Make a bundle from an exported graph: pass the gate, complete the manifest, write the model card."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...routers.blended import learned_router
from ...routers.bundle import (
    CARD,
    COMPANION,
    COMPANION_TOKENIZER,
    MODEL,
    RECORDS,
    TOKENIZER,
    Companion,
    Golden,
    Manifest,
    Truncation,
    save_bundle,
)
from ...routers.golden import GOLDEN_QUERIES
from ...routers.learned import LearnedRouter
from ...routers.session import Session
from ...routers.tokenizer import HuggingFaceBackend

#: Refuses a router that is not what was trained (ExportError), else returns what it measured, for the manifest.
Gate = Callable[[LearnedRouter], Mapping[str, Any]]
#: Makes the drift reference of an exported router, as plain data; None where there are too few queries for one.
MakeReference = Callable[[LearnedRouter], dict[str, Any] | None]


@dataclass(frozen=True)
class ExportedCompanion:
    """The exported general part of a router whose own graph reads queries by another encoder.

    Attributes:
        model: the graph.
        tokenizer_json: bytes of its tokenizer.
        truncation: how much of a query it reads.
    """

    model: bytes
    tokenizer_json: bytes
    truncation: Truncation


def publish(
    out: str | Path,
    manifest: Manifest,
    *,
    model: bytes,
    tokenizer_json: bytes,
    gate: Gate,
    reference: MakeReference,
    records: bytes | None = None,
    companion: ExportedCompanion | None = None,
) -> Path:
    """Pass an exported router through its gate, complete its manifest, and save the bundle.

    Args:
        out: the bundle's folder.
        manifest: all that is known of the router. Golden queries, the drift reference, the gate's measurements and the
            hashes of the files are filled in here.
        model: the exported graph.
        tokenizer_json: bytes of the tokenizer.
        gate: refuses a router that is not what was trained.
        reference: makes the drift reference.
        records: the names of training records (routers/nearest.py); None: the bundle names none.
        companion: the general part, where it is a graph of its own.

    Returns:
        The folder.

    Raises:
        ExportError: the graph does not reproduce the network.
        InputError: the path exists and is not a bundle.
    """
    session = _session(model, tokenizer_json, manifest.truncation)
    contents = {MODEL: model, TOKENIZER: tokenizer_json}
    beside = None
    if companion is not None:
        beside = _session(companion.model, companion.tokenizer_json, companion.truncation)
        contents |= {COMPANION: companion.model, COMPANION_TOKENIZER: companion.tokenizer_json}
        manifest = replace(manifest, companion=Companion(companion.truncation, _ids(beside, companion.truncation)))
    router = learned_router(manifest, session, beside)
    quality = router.quality(list(GOLDEN_QUERIES))
    golden = [
        Golden(query=query, ids=ids, quality=[float(value) for value in values])
        for query, ids, values in zip(GOLDEN_QUERIES, _ids(session, manifest.truncation), quality, strict=True)
    ]
    manifest = replace(
        manifest,
        training={**manifest.training, **gate(router)},
        golden=golden,
        reference=reference(router),
    )
    if records is not None:
        contents[RECORDS] = records
    return save_bundle(out, manifest, {**contents, CARD: model_card(manifest, Path(out).name).encode()})


def _session(model: bytes, tokenizer_json: bytes, truncation: Truncation) -> Session:
    return Session(
        model,
        HuggingFaceBackend(tokenizer_json, truncation.special_tokens),
        truncation.max_tokens,
        last_tokens=truncation.last_tokens,
        distinct=truncation.distinct,
        threads=1,
    )


def _ids(session: Session, truncation: Truncation) -> list[list[int]]:
    """The token ids of the golden queries."""
    ids, lengths = session.backend.encode([truncation.read(query).text for query in GOLDEN_QUERIES])
    return [row.tolist() for row in np.split(ids, np.cumsum(lengths)[:-1])]


def model_card(manifest: Manifest, name: str) -> str:
    """The README.md of a router's bundle."""
    training = manifest.training
    metrics = training.get("metrics", {})
    rows = "\n".join(f"| {key.replace('_', ' ')} | {shown(value)} |" for key, value in metrics.items())
    shares = "\n".join(f"| {share:.0%} | {value:.4f} |" for share, value in manifest.threshold_table[::2])
    pool = "\n".join(
        f"| {model.name} | {_price(model.input_price)} | {_price(model.output_price)} |" for model in manifest.pool
    )
    return f"""---
library_name: routelearn
tags: [llm-routing, {manifest.kind}]
---
# {name}

A {manifest.kind} router: the score is the expected win rate of **{manifest.strong}** (strong) over
**{manifest.weak}** (weak), ties counting one half. A score at or above the threshold goes to strong.

```python
import routelearn

router = routelearn.load("{name}")
print(router.route("Prove that the square root of 2 is irrational."))
```

## Trained on

{training.get("records", "?")} records, {training.get("queries", "?")} distinct queries. Seed
{training.get("config", {}).get("seed", "?")}. Data fingerprint `{training.get("data_fingerprint", "?")[:16]}`.
{_encoder(training)}{_naming(training)}
A score says nothing about queries unlike these. Where the novelty of a query exceeds {shown(manifest.novelty_bound)}
`routelearn.FallbackRouter` decides by rules.

## Measured on queries held out of the fit

| metric | value |
|---|---|
{rows}

## Thresholds (on the same held-out queries, or on those of `routelearn calibrate`)

| share to strong | threshold |
|---|---|
{shares}

Default threshold: {manifest.threshold:.4f}.
{_guaranteed(manifest)}
## Pool (USD per million tokens)

| model | input | output |
|---|---|---|
{pool}
"""


def verifier_card(manifest: Manifest, name: str) -> str:
    """The README.md of a verifier's bundle."""
    training = manifest.training
    metrics = "\n".join(f"| {key} | {shown(value)} |" for key, value in training["metrics"].items())
    rates = "\n".join(f"| {rate:.0%} | {value:.4f} |" for rate, value in manifest.threshold_table[::2])
    models = ", ".join(model.name for model in manifest.pool)
    prior = "prior" in manifest.calibration["features"]
    return f"""---
library_name: routelearn
tags: [llm-routing, llm-cascade, verifier]
---
# {name}

A verifier: it reads a query with an answer and says how likely the answer is good enough, that is how likely its score
is at least {training["config"]["good_at"]:g}. A cascade escalates an answer whose confidence is below the threshold.

```python
import routelearn

verifier = routelearn.load_verifier("{name}")
verifier.confidence(["How much is 12 * 12?"], ["12 * 12 = 144"]{", priors=[0.5]" if prior else ""})
```

It learned from {training["records"]} answers to {training["queries"]} queries, by these models: {models}.
{"It also reads the score that a router gave the query." if prior else ""}

## Measured on answers to held-out queries

| metric | value |
|---|---|
{metrics}

## Thresholds (from the same held-out answers)

| escalation rate | confidence below |
|---|---|
{rates}

Default threshold: {manifest.threshold:.4f}.
"""


def _encoder(training: Mapping[str, Any]) -> str:
    """The encoder by its name, a static one also by its fingerprint."""
    name, fingerprint = training.get("config", {}).get("encoder", "?"), training.get("encoder_fingerprint")
    return f"Encoder {name}, fingerprint `{fingerprint[:16]}`." if fingerprint else f"Encoder {name}."


def _naming(training: Mapping[str, Any]) -> str:
    """What the bundle tells of its training queries; empty where it names none."""
    by = training.get("config", {}).get("name_records", "none")
    if by == "none":
        return ""
    what = "the texts" if by == "text" else "hashes"
    return f"\nThe file records.json holds {what} of the training queries, with the outcomes of the models."


def _guaranteed(manifest: Manifest) -> str:
    """The section on the guaranteed threshold; empty where there is no guarantee."""
    guarantee = manifest.guarantee
    if guarantee is None:
        return ""
    return f"""
## Guaranteed threshold

At threshold {guarantee["threshold"]:.4f} the expected loss against always asking {manifest.strong} is at most
{guarantee["max_quality_loss"]:g} points of the {guarantee["unit"]}, with confidence {1 - guarantee["delta"]:g}
(Learn-then-Test, {guarantee["method"]}, {guarantee["n"]:,} labelled prompts, {guarantee["date"]}). The threshold sends
{guarantee["strong_share"]:.1%} of these prompts to strong. The guarantee holds for queries exchangeable with these
prompts, and for decisions of the learned router.
"""


def _price(value: float | None) -> str:
    return "not stated" if value is None else f"{value:g}"


def shown(value: Any) -> str:
    """A float with four decimals, any other value as it is."""
    return f"{value:.4f}" if isinstance(value, float) else str(value)
