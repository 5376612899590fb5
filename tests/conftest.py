"""Fixtures: tiny encoders, a sample, trained bundles, and where the real data is.

Encoders and bundles are made once in a run for all its processes (helpers/built_once.py). They are not kept from run
to run: they take some 30 seconds of two cores, and whoever changes the training wants to see them trained.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if (
    "PYTEST_XDIST_WORKER" in os.environ
):  # side by side, each process and what it starts gets one core's worth of threads
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from helpers.browser import Page, browser
from helpers.built_once import built_once
from helpers.quick import (
    count_processes,
    mark_slow_tests,
    pytest_runtest_call,
    pytest_runtest_protocol,
    refuse_unless_slow,
)
from hypothesis import HealthCheck, settings
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from routelearn.data.records import PerformanceRecord
from routelearn.data.sample import Sample, generate_sample
from routelearn.data.sample_text import TOPICS
from routelearn.routers.golden import GOLDEN_QUERIES
from routelearn.routers.learned import LearnedRouter
from routelearn.routers.loading import load

if TYPE_CHECKING:  # torch and transformers take seconds to import; fixtures do it when they need them
    from routelearn.training.bert.config import BertConfig
    from routelearn.training.frozen.config import FrozenConfig
    from routelearn.training.matrix_factorization.config import MatrixFactorizationConfig
    from routelearn.training.verifier.config import VerifierConfig

__all__ = ["pytest_runtest_call", "pytest_runtest_protocol"]

ROOT = Path(__file__).resolve().parent.parent
# A busy machine is no reason to fail: nothing here is asserted of time.
settings.register_profile("routelearn", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("routelearn")
DATA = Path(os.environ.get("ROUTELEARN_DATA") or ROOT / ".." / "shared" / "data").resolve()


def pytest_configure() -> None:
    count_processes()


@pytest.hookimpl(tryfirst=True)  # before pytest picks tests by their marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the slow tests, and let their files come first: two processes then end at about the same time."""
    mark_slow_tests(items)
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for all processes of this run."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"


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
def tiny_encoder(shared: Path) -> Path:
    """A model2vec folder with random vectors."""

    def build(folder: Path) -> None:
        from model2vec import StaticModel

        tokenizer = tiny_tokenizer()
        vectors = np.random.default_rng(0).standard_normal((tokenizer.get_vocab_size(), 64)).astype(np.float32)
        StaticModel(vectors, tokenizer, normalize=True).save_pretrained(folder)

    return built_once(shared / "encoder" / "tiny", build)


TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 128,
}


def save_transformer(folder: Path, kind: str) -> Path:
    """A randomly initialised "bert", "mpnet" or Llama-style decoder ("llama") with its tokenizer, as a local folder."""
    refuse_unless_slow("makes a transformer")
    import torch
    import transformers

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
def tiny_bert(shared: Path) -> Path:
    return built_once(shared / "transformer" / "bert", lambda folder: save_transformer(folder, "bert"))


@pytest.fixture(scope="session", autouse=True)
def own_cache(shared: Path) -> None:
    """Encoders made from the tiny folder do not end up in the user's cache."""
    os.environ.setdefault("ROUTELEARN_CACHE", str(shared / "cache"))


@pytest.fixture(scope="session")
def sample() -> Sample:
    return generate_sample(1200, seed=3)


def tiny_config(encoder: Path, **settings: object) -> MatrixFactorizationConfig:
    from routelearn.training.matrix_factorization.config import MatrixFactorizationConfig

    return MatrixFactorizationConfig(
        **{"encoder": str(encoder), "strong": "sim-max", "weak": "sim-small", "path_steps": 8, **settings}  # type: ignore[arg-type]
    )


@pytest.fixture(scope="session")
def bundle(shared: Path, tiny_encoder: Path, sample: Sample, own_cache: None) -> Path:
    """A trained bundle; tests that change it copy it first."""

    def build(folder: Path) -> None:
        from routelearn.training.matrix_factorization.train import train_matrix_factorization

        train_matrix_factorization(sample.performances, folder, tiny_config(tiny_encoder))

    return built_once(shared / "mf" / "router", build)


PAIR = {"strong": "sim-max", "weak": "sim-small"}


@pytest.fixture(scope="session")
def similarity_bundle(shared: Path, tiny_encoder: Path, sample: Sample, own_cache: None) -> Path:
    def build(folder: Path) -> None:
        from routelearn.training.similarity.train import SimilarityConfig, train_similarity

        train_similarity(sample.performances, folder, SimilarityConfig(encoder=str(tiny_encoder), **PAIR))

    return built_once(shared / "similarity" / "similarity", build)


@pytest.fixture(scope="session")
def named_bundle(shared: Path, tiny_encoder: Path, sample: Sample, own_cache: None) -> Path:
    """As `similarity_bundle`, with the names of its records, by hash."""

    def build(folder: Path) -> None:
        from routelearn.training.similarity.train import SimilarityConfig, train_similarity

        config = SimilarityConfig(encoder=str(tiny_encoder), name_records="hash", **PAIR)
        train_similarity(sample.performances, folder, config)

    return built_once(shared / "named" / "named", build)


@pytest.fixture(scope="session")
def ranking_bundle(shared: Path, tiny_encoder: Path, sample: Sample, own_cache: None) -> Path:
    def build(folder: Path) -> None:
        from routelearn.training.similarity.train import SimilarityConfig, train_similarity

        config = SimilarityConfig(encoder=str(tiny_encoder), method="bradley-terry", **PAIR)
        train_similarity(sample.preferences, folder, config)

    return built_once(shared / "ranking" / "ranking", build)


def bert_config(encoder: Path, **settings: object) -> BertConfig:
    from routelearn.training.bert.config import BertConfig

    rates = {"learning_rate": 2e-3, "head_learning_rate": 1e-2, "epochs": 2, "precision": "float32"}
    return BertConfig(encoder=str(encoder), **{**PAIR, **rates, "general": "none", **settings})  # type: ignore[arg-type]


def build_bert(folder: Path, sample: Sample, config: BertConfig) -> Path:
    from routelearn.training.bert.train import train_bert

    return built_once(folder, lambda folder: train_bert(sample.performances, folder, config))


def frozen_config(encoder: Path, **settings: object) -> FrozenConfig:
    from routelearn.training.frozen.config import FrozenConfig

    return FrozenConfig(encoder=str(encoder), **{**PAIR, "precision": "float32", "general": "none", **settings})  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def bert_bundle(shared: Path, tiny_bert: Path, sample: Sample) -> Path:
    return build_bert(shared / "bert" / "bert", sample, bert_config(tiny_bert))


@pytest.fixture(scope="session")
def frozen_bundle(shared: Path, tiny_bert: Path, sample: Sample) -> Path:
    def build(folder: Path) -> None:
        from routelearn.training.frozen.train import train_frozen

        train_frozen(sample.performances, folder, frozen_config(tiny_bert, landmarks=256))

    return built_once(shared / "frozen" / "frozen", build)


@pytest.fixture(scope="session")
def blended_bundle(shared: Path, tiny_bert: Path, sample: Sample) -> Path:
    """A frozen router with a companion."""

    def build(folder: Path) -> None:
        from routelearn.training.frozen.train import train_frozen

        train_frozen(sample.performances, folder, frozen_config(tiny_bert, landmarks=256, general="general"))

    return built_once(shared / "blended" / "blended", build)


@pytest.fixture(scope="session")
def int8_bundle(shared: Path, tiny_bert: Path, sample: Sample) -> Path:
    return build_bert(shared / "int8" / "bert-int8", sample, bert_config(tiny_bert, quantise="int8"))


def verifier_config(encoder: Path, **settings: object) -> VerifierConfig:
    from routelearn.training.verifier.config import VerifierConfig

    rates = {"learning_rate": 2e-3, "head_learning_rate": 1e-2, "epochs": 2, "precision": "float32"}
    sizes = {"max_tokens": 96, "query_tokens": 32}
    return VerifierConfig(encoder=str(encoder), **{**rates, **sizes, **settings})  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def verifier_bundle(shared: Path, tiny_bert: Path, sample: Sample) -> Path:
    def build(folder: Path) -> None:
        from routelearn.training.verifier.train import train_verifier

        config = verifier_config(tiny_bert, models=("sim-small", "sim-large"), weak="sim-small", strong="sim-max")
        train_verifier(sample.performances, folder, config)

    return built_once(shared / "verifier" / "verifier", build)


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


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A real browser, started once a module."""
    with browser(tmp_path_factory.mktemp("browser")) as running:
        yield running


@pytest.fixture
def page(driver: Any) -> Page:
    driver.get_log("browser")
    return Page(driver)
