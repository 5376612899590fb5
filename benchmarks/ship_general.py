"""Train models/general, the general router that comes with routelearn, on permissively licensed sources.

Run: ROUTELEARN_DATA=FOLDER python benchmarks/ship_general.py [--out FOLDER]

It takes a minute or two. The same data and the same versions of numpy and scipy give the same bytes.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from common import DATA, ROOT
from general_sources import SOURCES, read_sources, shipped_sources

from routelearn.training.general.config import GeneralConfig
from routelearn.training.general.train import train_general

#: Users' traffic is graded, not compared with a solution.
SETTINGS = GeneralConfig(traffic=tuple(source.name for source in SOURCES if source.judge == "grade"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "models" / "general")
    out: Path = parser.parse_args().out
    logging.basicConfig(level=logging.WARNING)
    train_general(read_sources(DATA, shipped_sources()), out, SETTINGS, progress=True)
    for path in sorted(out.iterdir()):
        print(f"{path}  {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
