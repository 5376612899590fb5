"""From a trained network to a bundle: golden queries, parity gate, manifest, model card."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..routers.base import Floats, Link, Model
from ..routers.bundle import CARD, MODEL, TOKENIZER, Golden, Manifest, Truncation, save_bundle
from ..routers.golden import GOLDEN_QUERIES
from ..routers.query import query_text
from ..routers.session import HuggingFaceBackend, Session
from .calibrate import Calibration
from .export import check_parity

#: Texts that the parity gate compares torch and the graph on.
PARITY_TEXTS = 1000


def publish(
    out: str | Path,
    *,
    kind: str,
    model: bytes,
    tokenizer_json: bytes,
    truncation: Truncation,
    reference: Callable[[list[str]], Floats],
    texts: Sequence[str],
    pool: Sequence[Model],
    strong: str,
    weak: str,
    link: Link,
    calibration: Calibration,
    threshold: float,
    threshold_table: Sequence[tuple[float, float]],
    novelty_bound: float | None,
    training: Mapping[str, Any],
) -> Path:
    """Gate, describe and save an exported router.

    Args:
        out: the bundle's folder.
        kind: of router.
        model: the exported graph.
        tokenizer_json: bytes of the tokenizer.
        truncation: how much of a query is read.
        reference: texts to quality (n, m), by torch.
        texts: texts of training queries, for the parity gate.
        pool: the candidate models, in the order of the graph's columns.
        strong: the strong model.
        weak: the weak model.
        link: how a score follows from two qualities.
        calibration: already folded into the graph.
        threshold: the default threshold.
        threshold_table: (strong share, threshold) pairs.
        novelty_bound: a larger novelty is unlike the training queries.
        training: config, fingerprint, counts and metrics.

    Returns:
        The folder.

    Raises:
        ExportError: the graph does not reproduce the network.
        InputError: the path exists and is no bundle.
    """
    names = [candidate.name for candidate in pool]
    backend = HuggingFaceBackend(tokenizer_json, truncation.special_tokens)
    session = Session(model, backend, truncation.max_tokens, distinct=truncation.distinct, threads=1)
    golden_texts = [query_text(query, truncation.max_characters).text for query in GOLDEN_QUERIES]
    compared = golden_texts + list(texts[:PARITY_TEXTS])
    columns = (names.index(strong), names.index(weak))
    parity = check_parity(reference, session, compared, link, columns)

    ids, lengths = backend.encode(golden_texts)
    quality = session.run(golden_texts)[0]["quality"]
    golden = [
        Golden(query, row.tolist(), [float(value) for value in values])
        for query, row, values in zip(GOLDEN_QUERIES, np.split(ids, np.cumsum(lengths)[:-1]), quality, strict=True)
    ]
    manifest = Manifest(
        kind=kind,
        pool=tuple(pool),
        strong=strong,
        weak=weak,
        link=link,
        truncation=truncation,
        calibration={
            "method": calibration.method,
            "slope": calibration.slope,
            "intercept": calibration.intercept,
            "log_loss": calibration.log_loss,
        },
        threshold=threshold,
        threshold_table=tuple(threshold_table),
        novelty_bound=novelty_bound,
        training={**training, **parity, "parity_texts": len(compared)},
        golden=golden,
    )
    contents = {MODEL: model, TOKENIZER: tokenizer_json, CARD: model_card(manifest, Path(out).name).encode()}
    return save_bundle(out, manifest, contents)


def model_card(manifest: Manifest, name: str) -> str:
    """The README.md of a bundle."""
    training = manifest.training
    metrics = training.get("metrics", {})
    rows = "\n".join(f"| {key.replace('_', ' ')} | {_shown(value)} |" for key, value in metrics.items())
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
A score says nothing about queries unlike these: beyond a novelty of {_shown(manifest.novelty_bound)}
`routelearn.FallbackRouter` answers by rules.

## Measured on queries held out of the fit

| metric | value |
|---|---|
{rows}

## Thresholds (on the same held-out queries)

| share to strong | threshold |
|---|---|
{shares}

Default threshold: {manifest.threshold:.4f}.

## Pool (USD per million tokens)

| model | input | output |
|---|---|---|
{pool}
"""


def _price(value: float | None) -> str:
    return "not stated" if value is None else f"{value:g}"


def _shown(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)
