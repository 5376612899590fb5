"""Fixtures: tiny encoders, a sample, trained bundles, and where the real data is."""

from __future__ import annotations

import os
import re
from pathlib import Path

if (
    "PYTEST_XDIST_WORKER" in os.environ
):  # side by side, each process and what it starts gets one core's worth of threads
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch
import transformers
from hypothesis import HealthCheck, settings
from model2vec import StaticModel
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from routelearn.data.records import PerformanceRecord
from routelearn.data.sample import Sample, generate_sample
from routelearn.data.sample_text import TOPICS
from routelearn.routers.golden import GOLDEN_QUERIES
from routelearn.routers.learned import LearnedRouter, load
from routelearn.training.bert.config import BertConfig
from routelearn.training.bert.train import train_bert
from routelearn.training.frozen.config import FrozenConfig
from routelearn.training.frozen.train import train_frozen
from routelearn.training.matrix_factorization.train import MatrixFactorizationConfig, train_matrix_factorization
from routelearn.training.similarity.train import SimilarityConfig, train_similarity
from routelearn.training.verifier.config import VerifierConfig
from routelearn.training.verifier.train import train_verifier

ROOT = Path(__file__).resolve().parent.parent
# A busy machine is no reason to fail: nothing here is asserted of time.
settings.register_profile("routelearn", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("routelearn")
DATA = Path(os.environ.get("ROUTELEARN_DATA") or ROOT / ".." / "shared" / "data").resolve()


@pytest.fixture(scope="session")
def real_data() -> Path:
    if not DATA.is_dir():
        pytest.skip(f"no real data at {DATA}; set ROUTELEARN_DATA")
    return DATA


def tiny_tokenizer(*special: str) -> Tokenizer:
    """A tokenizer with some hundred words: quick, and enough for the sample's topics."""
    text = " ".join(
        word for levels, fillers in TOPICS.values() for group in [*levels, *fillers.values()] for word in group
    )
    words = sorted({word.lower() for word in re.findall(r"\w+", text)})
    letters = [chr(code) for code in range(33, 127)] + [f"##{chr(code)}" for code in range(33, 127)]
    vocabulary = ["[PAD]", "[UNK]", *special, *letters, *(word for word in words if word not in letters)]
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model2vec folder with random vectors."""
    tokenizer = tiny_tokenizer()
    vectors = np.random.default_rng(0).standard_normal((tokenizer.get_vocab_size(), 64)).astype(np.float32)
    folder = tmp_path_factory.mktemp("encoder") / "tiny"
    StaticModel(vectors, tokenizer, normalize=True).save_pretrained(folder)
    return folder


TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 128,
}


def save_transformer(folder: Path, kind: str) -> Path:
    """A randomly initialised "bert", "mpnet" or Llama-style decoder ("llama") with its tokenizer, as a local folder."""
    torch.manual_seed(0)
    special = [] if kind == "llama" else ["[CLS]", "[SEP]"]
    tokenizer = tiny_tokenizer(*special)
    size = tokenizer.get_vocab_size()
    if special:
        tokens = [(token, tokenizer.token_to_id(token)) for token in special]
        tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=tokens)
    if kind == "bert":
        transformers.BertModel(transformers.BertConfig(vocab_size=size, **TINY)).save_pretrained(folder)
    elif kind == "mpnet":
        transformers.MPNetModel(transformers.MPNetConfig(vocab_size=size, **TINY)).save_pretrained(folder)
    else:
        config = transformers.LlamaConfig(vocab_size=size, num_key_value_heads=1, pad_token_id=0, **TINY)
        transformers.LlamaModel(config).save_pretrained(folder)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]")
    fast.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_transformer(tmp_path_factory.mktemp("transformer") / "bert", "bert")


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


PAIR = {"strong": "sim-max", "weak": "sim-small"}


@pytest.fixture(scope="session")
def similarity_bundle(
    tiny_encoder: Path, sample: Sample, tmp_path_factory: pytest.TempPathFactory, own_cache: None
) -> Path:
    config = SimilarityConfig(encoder=str(tiny_encoder), **PAIR)
    return train_similarity(sample.performances, tmp_path_factory.mktemp("bundle") / "similarity", config)


@pytest.fixture(scope="session")
def ranking_bundle(
    tiny_encoder: Path, sample: Sample, tmp_path_factory: pytest.TempPathFactory, own_cache: None
) -> Path:
    config = SimilarityConfig(encoder=str(tiny_encoder), method="bradley-terry", **PAIR)
    return train_similarity(sample.preferences, tmp_path_factory.mktemp("bundle") / "ranking", config)


def bert_config(encoder: Path, **settings: object) -> BertConfig:
    rates = {"learning_rate": 2e-3, "head_learning_rate": 1e-2, "epochs": 2, "precision": "float32"}
    return BertConfig(encoder=str(encoder), **{**PAIR, **rates, **settings})  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def bert_bundle(tiny_bert: Path, sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_bert(sample.performances, tmp_path_factory.mktemp("bundle") / "bert", bert_config(tiny_bert))


def frozen_config(encoder: Path, **settings: object) -> FrozenConfig:
    return FrozenConfig(encoder=str(encoder), **{**PAIR, "precision": "float32", **settings})  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def frozen_bundle(tiny_bert: Path, sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = frozen_config(tiny_bert, landmarks=256)
    return train_frozen(sample.performances, tmp_path_factory.mktemp("bundle") / "frozen", config)


@pytest.fixture(scope="session")
def int8_bundle(tiny_bert: Path, sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = bert_config(tiny_bert, quantise="int8")
    return train_bert(sample.performances, tmp_path_factory.mktemp("bundle") / "bert-int8", config)


def verifier_config(encoder: Path, **settings: object) -> VerifierConfig:
    rates = {"learning_rate": 2e-3, "head_learning_rate": 1e-2, "epochs": 2, "precision": "float32"}
    sizes = {"max_tokens": 96, "query_tokens": 32}
    return VerifierConfig(encoder=str(encoder), **{**rates, **sizes, **settings})  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def verifier_bundle(tiny_bert: Path, sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = verifier_config(tiny_bert, models=("sim-small", "sim-large"), weak="sim-small", strong="sim-max")
    return train_verifier(sample.performances, tmp_path_factory.mktemp("bundle") / "verifier", config)


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
