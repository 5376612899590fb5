"""The general router inside a router with a transformer: the recipes frozen and bert write a companion."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import bert_config, frozen_config
from typer.testing import CliRunner

from routelearn.cli.main import app
from routelearn.data.sample import Sample
from routelearn.routers.blended import BlendedRouter
from routelearn.routers.bundle import COMPANION, COMPANION_TOKENIZER, read_bundle
from routelearn.routers.errors import InputError
from routelearn.routers.general import GeneralRouter
from routelearn.routers.golden import GOLDEN_QUERIES
from routelearn.routers.loading import load
from routelearn.training.bert.train import check_bert, train_bert
from routelearn.training.frozen.train import check_frozen, train_frozen

pytestmark = pytest.mark.slow

QUERIES = list(GOLDEN_QUERIES)


def test_the_general_quality_is_that_of_the_general_router_as_the_labels_place_the_models(blended_bundle: Path) -> None:
    router, general = load(blended_bundle), load("general")
    assert isinstance(router, BlendedRouter)
    assert isinstance(general, GeneralRouter)
    abilities = router.manifest.training["general"]["abilities"]
    items = general.items(QUERIES)
    logits = items[:, :1] * np.array([abilities[name] for name in router.models]) + items[:, 1:]
    _, found, share = router.parts(QUERIES)
    assert found == pytest.approx(1 / (1 + np.exp(-logits)), abs=1e-5)
    assert share.max() == 1  # some of the golden queries are unlike the labelled ones
    far = share == 1
    assert router.quality(QUERIES)[far] == pytest.approx(found[far], abs=1e-6)


def test_its_own_quality_is_that_of_the_router_that_was_trained_without(
    blended_bundle: Path, frozen_bundle: Path
) -> None:
    router = load(blended_bundle)
    assert isinstance(router, BlendedRouter)
    assert router.parts(QUERIES)[0] == pytest.approx(load(frozen_bundle).quality(QUERIES), abs=1e-6)
    assert "general" not in load(frozen_bundle).manifest.training
    assert COMPANION not in read_bundle(frozen_bundle)[1]


def test_the_gate_compared_the_blended_quality_and_thresholds_are_of_it(blended_bundle: Path, sample: Sample) -> None:
    router = load(blended_bundle)
    training = router.manifest.training
    assert max(training["parity_batched"], training["parity_single"]) <= 1e-4
    scores = router.score([query for query in sample.queries if isinstance(query, str)])
    assert (scores >= router.threshold).mean() == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize("quantise", ["none", "int8"])
def test_a_fine_tuned_transformer_gets_a_companion_in_float_and_in_int8(
    quantise: str, tiny_bert: Path, sample: Sample, tmp_path: Path
) -> None:
    records = [record for record in sample.performances if record.split != "test"][:1600]
    config = bert_config(tiny_bert, general="general", epochs=1, quantise=quantise)
    path = train_bert(records, tmp_path / "router", config)
    router = load(path)
    assert isinstance(router, BlendedRouter)
    own, general, share = router.parts(QUERIES)
    assert router.quality(QUERIES) == pytest.approx(own + share[:, None] * (general - own), abs=1e-6)
    assert {COMPANION, COMPANION_TOKENIZER} <= {file.name for file in path.iterdir()}


def test_a_router_that_is_no_general_one_is_refused_before_training(
    tiny_bert: Path, sample: Sample, tmp_path: Path
) -> None:
    folder = Path(__file__).resolve().parents[1] / "bundles" / "version-4"
    for check, config in ((check_frozen, frozen_config(tiny_bert)), (check_bert, bert_config(tiny_bert))):
        with pytest.raises(InputError, match="expected a general router, such as 'general'"):
            check(sample.performances, tmp_path / "out", replace(config, general=str(folder)))  # type: ignore[operator]
    with pytest.raises(InputError, match="expected a general router on a static encoder"):
        check_frozen(sample.performances, tmp_path / "out", frozen_config(tiny_bert, general="general-minilm"))
    assert not list(tmp_path.iterdir())


def test_the_same_labels_and_seed_give_the_same_companion(tiny_bert: Path, sample: Sample, tmp_path: Path) -> None:
    records = [record for record in sample.performances if record.split != "test"][:600]
    config = frozen_config(tiny_bert, landmarks=32, general="general")
    first, second = (read_bundle(train_frozen(records, tmp_path / name, config))[1] for name in ("a", "b"))
    assert first[COMPANION] == second[COMPANION]


def test_inspect_names_the_general_router_and_the_files(blended_bundle: Path) -> None:
    said = CliRunner().invoke(app, ["inspect", str(blended_bundle)], env={"COLUMNS": "200"})
    assert said.exit_code == 0, said.output
    assert "general, at least" in said.output
    assert "general.onnx" in said.output
