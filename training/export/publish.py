"""From an exported graph to a bundle: gate, golden queries, manifest, model card."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...routers.base import Link, Model
from ...routers.bundle import CARD, MODEL, TOKENIZER, Golden, Manifest, Truncation, save_bundle
from ...routers.golden import GOLDEN_QUERIES
from ...routers.session import Session
from ...routers.tokenizer import HuggingFaceBackend


@dataclass(frozen=True)
class Description:
    """What a manifest says of a router, but for what `publish` measures itself.

    Attributes:
        kind: of router.
        pool: the candidate models, in the order of the graph's columns.
        strong: the strong model.
        weak: the weak model.
        link: how a score follows from two qualities.
        truncation: how much of a query is read.
        calibration: already folded into the graph.
        threshold: the default threshold.
        threshold_table: (strong share, threshold) pairs.
        novelty_bound: a larger novelty is unlike the training queries.
        training: config, fingerprint, counts and metrics.
        golden_tolerance: largest |difference| of a golden quality that still passes at load.
    """

    kind: str
    pool: Sequence[Model]
    strong: str
    weak: str
    link: Link
    truncation: Truncation
    calibration: Mapping[str, Any]
    threshold: float
    threshold_table: Sequence[tuple[float, float]]
    novelty_bound: float | None
    training: Mapping[str, Any]
    golden_tolerance: float = 1e-4

    @property
    def columns(self) -> tuple[int, int]:
        """Of strong and weak."""
        names = [model.name for model in self.pool]
        return names.index(self.strong), names.index(self.weak)


#: Makes the reference of an exported graph, as plain data; None: it cannot have one.
MakeReference = Callable[[Session, Description], dict[str, Any] | None]


def publish(
    out: str | Path,
    description: Description,
    *,
    model: bytes,
    tokenizer_json: bytes,
    gate: Callable[[Session, Description], Mapping[str, Any]],
    reference: MakeReference,
) -> Path:
    """Gate, describe and save an exported router.

    Args:
        out: the bundle's folder.
        description: of the router.
        model: the exported graph.
        tokenizer_json: bytes of the tokenizer.
        gate: raises ExportError where the graph is not what was trained, and returns what it measured.
        reference: makes the reference that drift is told from.

    Returns:
        The folder.

    Raises:
        ExportError: the graph does not reproduce the network.
        InputError: the path exists and is no bundle.
    """
    truncation = description.truncation
    backend = HuggingFaceBackend(tokenizer_json, truncation.special_tokens)
    session = Session(
        model,
        backend,
        truncation.max_tokens,
        last_tokens=truncation.last_tokens,
        distinct=truncation.distinct,
        threads=1,
    )
    measured = gate(session, description)
    golden_texts = [truncation.read(query).text for query in GOLDEN_QUERIES]
    ids, lengths = backend.encode(golden_texts)
    quality = session.run(golden_texts)[0]["quality"]
    golden = [
        Golden(query, row.tolist(), [float(value) for value in values])
        for query, row, values in zip(GOLDEN_QUERIES, np.split(ids, np.cumsum(lengths)[:-1]), quality, strict=True)
    ]
    manifest = Manifest(
        kind=description.kind,
        pool=tuple(description.pool),
        strong=description.strong,
        weak=description.weak,
        link=description.link,
        truncation=truncation,
        calibration=description.calibration,
        threshold=description.threshold,
        threshold_table=tuple(description.threshold_table),
        novelty_bound=description.novelty_bound,
        training={**description.training, **measured},
        golden=golden,
        golden_tolerance=description.golden_tolerance,
        reference=reference(session, description),
    )
    contents = {MODEL: model, TOKENIZER: tokenizer_json, CARD: model_card(manifest, Path(out).name).encode()}
    return save_bundle(out, manifest, contents)


def model_card(manifest: Manifest, name: str) -> str:
    """The README.md of a bundle."""
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
A score says nothing about queries unlike these: beyond a novelty of {shown(manifest.novelty_bound)}
`routelearn.FallbackRouter` answers by rules.

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


def _guaranteed(manifest: Manifest) -> str:
    """The section of the guaranteed threshold; empty where there is none."""
    found = manifest.guarantee
    if found is None:
        return ""
    return f"""
## Guaranteed threshold

At threshold {found["threshold"]:.4f} the expected loss against always asking {manifest.strong} is at most
{found["max_quality_loss"]:g} points of the {found["unit"]}, with confidence {1 - found["delta"]:g} (Learn-then-Test,
{found["method"]}, {found["n"]:,} labelled prompts, {found["date"]}). It sends {found["strong_share"]:.1%} of
them to strong. It holds for queries exchangeable with those, and for decisions of the learned router.
"""


def _price(value: float | None) -> str:
    return "not stated" if value is None else f"{value:g}"


def shown(value: Any) -> str:
    """A number with four decimals, anything else as it is."""
    return f"{value:.4f}" if isinstance(value, float) else str(value)
