from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model2vec import StaticModel
from tokenizers import AddedToken

from routelearn.routers.bundle import Truncation
from routelearn.routers.errors import InputError
from routelearn.routers.tokenizer import Ids, Lengths
from routelearn.training.encoders.static import quantise, resolve_encoder, static_encoder, tokenize


def test_an_encoder_is_cached_by_its_content(tiny_encoder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_encoder, tmp_path / "other-name"))
    assert static_encoder(copy).fingerprint == static_encoder(tiny_encoder).fingerprint
    model = StaticModel.from_pretrained(tiny_encoder)
    model.embedding = model.embedding * 2 + 0.1
    model.save_pretrained(tmp_path / "changed")
    assert static_encoder(tmp_path / "changed").fingerprint != static_encoder(tiny_encoder).fingerprint


def test_padding_and_unknown_tokens_are_silent(tiny_encoder: Path) -> None:
    encoder = static_encoder(tiny_encoder)
    assert not encoder.table[:2].any()
    assert encoder.table[2:].any(axis=1).all()


def test_a_table_that_does_not_fit_its_tokenizer_is_refused(tiny_encoder: Path, tmp_path: Path) -> None:
    model = StaticModel.from_pretrained(tiny_encoder)
    model.tokenizer.add_tokens([AddedToken("<extra>")])
    model.save_pretrained(tmp_path / "extra")
    with pytest.raises(InputError, match="cannot be read as a model2vec model"):
        static_encoder(tmp_path / "extra")


def test_angles_survive_rotation_and_rounding(tiny_encoder: Path) -> None:
    encoder = static_encoder(tiny_encoder)
    original = np.asarray(StaticModel.from_pretrained(tiny_encoder).embedding, np.float64)[2:200]
    table = encoder.table[2:200].astype(np.float64)
    original /= np.linalg.norm(original, axis=1, keepdims=True)
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    assert np.abs(original @ original.T - table @ table.T).max() < 0.02


def test_rounding_is_within_half_a_step() -> None:
    values = np.random.default_rng(0).uniform(-1, 1, (500, 8)).astype(np.float32)
    rounded, scale = quantise(values)
    assert np.abs(rounded * scale - values).max() <= scale * 0.6


def test_distinct_tokens_count_once(tiny_encoder: Path) -> None:
    backend = static_encoder(tiny_encoder).backend()
    ids, lengths = tokenize(["why why how why", "", "how"], backend, Truncation(distinct=True))
    assert lengths.tolist() == [2, 0, 1]
    assert len(set(ids[:2].tolist())) == 2
    assert tokenize(["why why how why"], backend, Truncation(distinct=False))[1].tolist() == [4]


def test_the_token_budget_cuts(tiny_encoder: Path) -> None:
    backend = static_encoder(tiny_encoder).backend()
    assert tokenize(["why how " * 50], backend, Truncation(max_tokens=10))[1].tolist() == [10]


@given(lengths=st.lists(st.integers(0, 12), max_size=6), budget=st.integers(1, 9), data=st.data())
def test_training_reads_the_tokens_that_a_router_reads(lengths: list[int], budget: int, data: st.DataObject) -> None:
    """Word i of a text is token i + 1: its number among the words of the backend below."""
    truncation = Truncation(max_tokens=budget, last_tokens=data.draw(st.integers(0, budget)), characters_per_token=99)
    found, kept = tokenize([" ".join(map(str, range(length))) for length in lengths], Counting(), truncation)
    rows = np.split(found, np.cumsum(kept)[:-1]) if lengths else []
    for row, length in zip(rows, lengths, strict=True):
        whole = np.arange(length, dtype=np.int32)
        assert np.array_equal(row, truncation.kept(whole))
        first = budget - truncation.last_tokens
        read = [word for word in range(length) if word < first or word >= length - truncation.last_tokens]
        assert row.tolist() == (list(range(length)) if length <= budget else read)


class Counting:
    """A tokenizer whose ids are the numbers that a text consists of."""

    name = "counting"

    def encode(self, texts: list[str]) -> tuple[Ids, Lengths]:
        rows = [[int(word) for word in text.split()] for text in texts]
        return np.array([one for row in rows for one in row], np.int32), np.array([len(row) for row in rows], np.int64)


@pytest.mark.parametrize("source", ["/no/such/folder", "no-such-name", "./nothing"])
def test_an_encoder_that_is_not_there_is_named(source: str) -> None:
    with pytest.raises(InputError, match="no encoder folder"):
        resolve_encoder(source)


def test_a_folder_that_is_no_encoder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no config\.json"):
        resolve_encoder(tmp_path)
