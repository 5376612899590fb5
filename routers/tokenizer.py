"""Tokenizer back ends: they turn texts into token ids, all in one flat array."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from .errors import BundleCorruptError, InferenceError

Ids = npt.NDArray[np.int32]
Lengths = npt.NDArray[np.int64]
T = TypeVar("T")


class TokenizerBackend(Protocol):
    """Turns texts into token ids, without padding or truncation."""

    name: str

    def encode(self, texts: list[str]) -> tuple[Ids, Lengths]:
        """Tokenize n texts.

        Returns:
            The ids of all texts one after the other, int32 (total,), and the number of ids of each, int64 (n,).
        """
        ...


class HuggingFaceBackend:
    """The `tokenizers` library, which every installation has."""

    name = "tokenizers"

    def __init__(self, tokenizer_json: bytes, special_tokens: bool) -> None:
        """Parse a tokenizer.json.

        Raises:
            BundleCorruptError: the library cannot read it.
        """
        self._tokenizer = _made(lambda: Tokenizer.from_str(tokenizer_json.decode("utf-8")))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._special_tokens = special_tokens

    def encode(self, texts: list[str]) -> tuple[Ids, Lengths]:
        encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=self._special_tokens)
        rows = [encoding.ids for encoding in encodings]
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        ids = np.fromiter((token for row in rows for token in row), np.int32, int(lengths.sum()))
        return ids, lengths


class TokieBackend:
    """The `tokie` library (extra `fast`), which gives the same ids many times faster."""

    name = "tokie"

    def __init__(self, tokenizer_json: bytes, special_tokens: bool) -> None:
        """Parse a tokenizer.json.

        Raises:
            BundleCorruptError: the library cannot read it.
            ModuleNotFoundError: tokie is not installed.
        """
        import tokie

        # tokie reads files only. The bundle's file may have changed since it was hashed: tokie gets the hashed bytes.
        with tempfile.NamedTemporaryFile(suffix=".json") as copy:
            copy.write(tokenizer_json)
            copy.flush()
            # tokie's type stubs are older than its code.
            self._tokenizer: Any = _made(lambda: tokie.Tokenizer.from_json(copy.name))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._special_tokens = special_tokens

    def encode(self, texts: list[str]) -> tuple[Ids, Lengths]:
        ids, lengths = self._tokenizer.encode_batch_flat(texts, add_special_tokens=self._special_tokens)
        return ids.view(np.int32), lengths.view(np.int64)


def keep_ends(ids: Ids, max_tokens: int, last_tokens: int) -> Ids:
    """Cut the ids of one text, int32 (length,), to a budget: the first ids and the last `last_tokens` ids stay."""
    if len(ids) <= max_tokens:
        return ids
    return np.concatenate([ids[: max_tokens - last_tokens], ids[len(ids) - last_tokens :]])


def encode(backend: TokenizerBackend, texts: list[str]) -> tuple[Ids, Lengths]:
    """Tokenize texts; lone surrogates, which no tokenizer accepts, become replacement characters.

    Raises:
        InferenceError: the tokenizer failed.
    """
    try:
        try:
            return backend.encode(texts)
        except (UnicodeEncodeError, TypeError):
            return backend.encode([text.encode("utf-8", "replace").decode("utf-8") for text in texts])
    except BaseException as error:
        if not _is_failure(error):
            raise
        raise InferenceError(f"the tokenizer failed on {len(texts)} texts: {error}") from error


def _made(make: Callable[[], T]) -> T:
    try:
        return make()
    except BaseException as error:
        if not _is_failure(error):
            raise
        raise BundleCorruptError(f"tokenizer.json cannot be read: {error}") from error


def _is_failure(error: BaseException) -> bool:
    """Whether a library failed: the panic of one in Rust is no `Exception`, and must not end the process."""
    return isinstance(error, Exception) or type(error).__module__ == "pyo3_runtime"
