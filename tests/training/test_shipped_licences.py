"""The licence audit: bundles that come with routelearn are trained on permissively licensed sources alone."""

from __future__ import annotations

import sys
from pathlib import Path

from routelearn.routers.bundle import read_manifest
from routelearn.routers.shipped import MODELS, shipped_names

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from general_sources import PERMISSIVE, SOURCES, shipped_sources  # noqa: E402

#: Sources whose data must never be in a shipped bundle: AlpacaEval is CC BY-NC, the others state no licence.
FORBIDDEN = {"alpaca_eval", "routerbench_costs", "cascades_knowledge", "mot_date", "bfcl_function_calling", "mt_bench"}


def test_every_source_of_a_shipped_bundle_states_a_permissive_licence() -> None:
    licence = {source.name: source.licence for source in SOURCES}
    for name in shipped_names():
        sources = read_manifest(MODELS / name).training["sources"]
        assert sources
        for source in sources:
            assert licence.get(source) in PERMISSIVE, f"models/{name} was trained on {source}"
        assert not FORBIDDEN & set(sources)


def test_the_model_card_names_every_source_with_its_licence() -> None:
    for name in shipped_names():
        card = (MODELS / name / "README.md").read_text()
        for source in shipped_sources():
            assert f"| {source.name} |" in card
            assert str(source.licence) in next(
                line for line in card.splitlines() if line.startswith(f"| {source.name} |")
            )


def test_weights_of_others_stand_beside_their_licence() -> None:
    folder = MODELS / "general-minilm"
    assert "sentence-transformers/all-MiniLM-L6-v2" in (folder / "README.md").read_text()
    assert "Apache License" in (folder / "LICENSE").read_text()
