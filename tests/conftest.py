"""Fixtures: a tiny encoder, a sample, a trained bundle, and where the real data is."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
from model2vec import StaticModel
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from routelearn.data.records import PerformanceRecord
from routelearn.data.sample import Sample, generate_sample
from routelearn.data.sample_text import TOPICS
from routelearn.routers.golden import GOLDEN_QUERIES
from routelearn.routers.learned import LearnedRouter, load
from routelearn.training.matrix_factorization import MatrixFactorizationConfig, train_matrix_factorization

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("ROUTELEARN_DATA") or ROOT / ".." / "shared" / "data").resolve()


@pytest.fixture(scope="session")
def real_data() -> Path:
    if not DATA.is_dir():
        pytest.skip(f"no real data at {DATA}; set ROUTELEARN_DATA")
    return DATA


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model2vec folder with some hundred words and random vectors: quick, and enough for the sample's topics."""
    text = " ".join(
        word for levels, fillers in TOPICS.values() for group in [*levels, *fillers.values()] for word in group
    )
    words = sorted({word.lower() for word in re.findall(r"\w+", text)})
    letters = [chr(code) for code in range(33, 127)] + [f"##{chr(code)}" for code in range(33, 127)]
    vocabulary = ["[PAD]", "[UNK]", *letters, *(word for word in words if word not in letters)]
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    vectors = np.random.default_rng(0).standard_normal((len(vocabulary), 64)).astype(np.float32)
    folder = tmp_path_factory.mktemp("encoder") / "tiny"
    StaticModel(vectors, tokenizer, normalize=True).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Encoders made from the tiny folder do not end up in the user's cache."""
    os.environ.setdefault("ROUTELEARN_CACHE", str(tmp_path_factory.getbasetemp().parent / "routelearn-cache"))


@pytest.fixture(scope="session")
def sample() -> Sample:
    return generate_sample(1200, seed=3)


def tiny_config(encoder: Path, **settings: object) -> MatrixFactorizationConfig:
    return MatrixFactorizationConfig(
        **{"encoder": str(encoder), "strong": "sim-max", "weak": "sim-small", "path_steps": 8, **settings}  # type: ignore[arg-type]
    )


@pytest.fixture(scope="session")
def bundle(tiny_encoder: Path, sample: Sample, tmp_path_factory: pytest.TempPathFactory, own_cache: None) -> Path:
    """A trained bundle; tests that change it copy it first."""
    out = tmp_path_factory.mktemp("bundle") / "router"
    return train_matrix_factorization(sample.performances, out, tiny_config(tiny_encoder))


@pytest.fixture(scope="session")
def router(bundle: Path) -> LearnedRouter:
    return load(bundle)


@pytest.fixture(scope="session")
def texts(sample: Sample) -> list[str]:
    plain = [query for query in sample.queries if isinstance(query, str)]
    return [query for query in GOLDEN_QUERIES if isinstance(query, str)] + plain


@pytest.fixture(scope="session")
def tested(sample: Sample) -> list[PerformanceRecord]:
    return [record for record in sample.performances if record.split == "test"]
