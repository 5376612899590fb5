"""Make models/minilm-static, the static encoder that comes with routelearn: distil the packaged MiniLM.

Run: python benchmarks/ship_encoder.py [--out FOLDER]

It takes some 20 seconds and needs the extras distill and minilm. README.md and LICENSE of the folder stay as they are.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

from routelearn.training.config import PACKAGED_ENCODER, SHIPPED_ENCODER
from routelearn.training.encoders.static import static_encoder

FILES = ("table.npz", "tokenizer.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "models" / SHIPPED_ENCODER)
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["ROUTELEARN_CACHE"] = cache  # an empty one: the encoder is distilled now
        encoder = static_encoder(PACKAGED_ENCODER)
        for name in FILES:
            shutil.copyfile(Path(cache) / "encoders" / encoder.fingerprint / name, out / name)
    description = {
        "name": SHIPPED_ENCODER,
        "distilled_from": PACKAGED_ENCODER,
        "fingerprint": encoder.fingerprint,
        "vocabulary": len(encoder.table),
        "dimensions": encoder.dimensions,
        "sha256": {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in FILES},
    }
    (out / "encoder.json").write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
    for name, digest in description["sha256"].items():
        print(f"{digest}  {out / name}  {(out / name).stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
