"""The README.md of a verifier's bundle."""

from __future__ import annotations

from ...routers.bundle import Manifest
from .publish import shown


def verifier_card(manifest: Manifest, name: str) -> str:
    """As Markdown."""
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

A verifier: reads a query with an answer and says how likely the answer is good enough (its score would be at least
{training["config"]["good_at"]:g}). In a cascade, an answer whose confidence is below the threshold is escalated.

```python
import routelearn

verifier = routelearn.load_verifier("{name}")
verifier.confidence(["How much is 12 * 12?"], ["12 * 12 = 144"]{", priors=[0.5]" if prior else ""})
```

Learned from {training["records"]} answers to {training["queries"]} queries, of: {models}.
{"It also reads the score that a router gave the query." if prior else ""}

## Measured on answers to queries held out of the training

| metric | value |
|---|---|
{metrics}

## Thresholds (from the same held-out answers)

| escalation rate | confidence below |
|---|---|
{rates}

Default threshold: {manifest.threshold:.4f}.
"""
