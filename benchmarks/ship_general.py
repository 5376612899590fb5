"""Train models/general, the general router that comes with routelearn, on permissively licensed sources.

Run: ROUTELEARN_DATA=FOLDER python benchmarks/ship_general.py [--out FOLDER]

It takes a minute or two. The same data and the same versions of numpy and scipy give the same bytes.
"""

from __future__ import annotations

import argparse
import logging
import shutil
from pathlib import Path

from common import DATA, ROOT
from general_sources import SOURCES, read_sources, shipped_sources

from routelearn.routers.bundle import CARD, Manifest, read_bundle, save_bundle
from routelearn.training.general.config import GeneralConfig
from routelearn.training.general.train import train_general
from routelearn.training.log import training_folder

#: Users' traffic is graded, not compared with a solution.
SETTINGS = GeneralConfig(traffic=tuple(source.name for source in SOURCES if source.judge == "grade"))


def card(manifest: Manifest) -> str:
    """The model card."""
    training, general = manifest.training, manifest.general or {}
    rows = "\n".join(f"| {source.name} | {source.judge} | {source.licence} |" for source in shipped_sources())
    metrics = training["metrics"]
    return f"""---
library_name: routelearn
license: apache-2.0
tags: [llm-routing, general]
---
# general

The general router: it predicts how hard a query is, and compares any two models by their abilities. It needs no label
of yours. Weights: Apache-2.0. The static encoder is minilm-static ({training["encoder_fingerprint"]}).

```python
import routelearn

router = routelearn.load("general", strong="gpt-4o", weak="gpt-4o-mini")
print(router.route("Prove that the square root of 2 is irrational."))
```

## Trained on

{training["records"]:,} records of {training["queries"]:,} queries and {len(general["abilities"])} models, by `python
benchmarks/ship_general.py`. Every source states a permissive licence. No text of a source stands in the bundle.

| source | answers are judged by | licence |
|---|---|---|
{rows}

## Measured

On {metrics["held-out queries"]:,} held-out queries of the same sources the log loss of an outcome is
{metrics["log loss"]:.4f}, and {metrics["log loss of the global ranking"]:.4f} without the text of the query.

## Limits

- It knows which kinds of queries are hard. Among queries of one kind it is close to chance.
- It reads English best. The abilities of models that one source alone has seen rest on that source.
- An ability is an average over all kinds of queries; a model that is better at code than at chat has one ability here.
- A score is calibrated as far as the abilities are: those of the table, of labels or of mean scores. A model placed by
  its tier or by an arena rating has no calibrated score, and each decision says so.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "models" / "general")
    out: Path = parser.parse_args().out
    logging.basicConfig(level=logging.WARNING)
    train_general(read_sources(DATA, shipped_sources()), out, SETTINGS, progress=True)
    shutil.rmtree(training_folder(out))
    manifest, contents = read_bundle(out)
    save_bundle(out, manifest, {**contents, CARD: card(manifest).encode()})
    for path in sorted(out.iterdir()):
        print(f"{path}  {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
