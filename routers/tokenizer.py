"""The tokenizer back ends: texts to flat token ids."""

from __future__ import annotations

import tempfile
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from .errors import BundleCorruptError

Ids = npt.NDArray[np.int32]
Lengths = npt.NDArray[np.int64]


class TokenizerBackend(Protocol):
    """Texts to token ids, without padding or truncation."""

    name: str

    def encode(self, texts: list[str]) -> tuple[Ids, Lengths]:
        """Ids of all texts one after the other, int32 (total,), and their lengths, int64 (n,)."""
        ...


class HuggingFaceBackend:
    """The `tokenizers` library: the reference, always there."""

    name = "tokenizers"

    def __init__(self, tokenizer_json: bytes, special_tokens: bool) -> None:
        """Parse a tokenizer.json.

        Raises:
            BundleCorruptError: the library cannot read it.
        """
        try:
            self._tokenizer = Tokenizer.from_str(tokenizer_json.decode("utf-8"))
        except Exception as error:  # tokenizers raises bare Exception
            raise BundleCorruptError(f"tokenizer.json cannot be read: {error}") from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._special_tokens = special_tokens

    def encode(self, texts: list[str]) -> tuple[Ids, Lengths]:
        """See `TokenizerBackend.encode`."""
        encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=self._special_tokens)
        rows = [encoding.ids for encoding in encodings]
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        ids = np.fromiter((token for row in rows for token in row), np.int32, int(lengths.sum()))
        return ids, lengths


class TokieBackend:
    """The `tokie` library (extra `fast`): the same ids, many times faster."""

    name = "tokie"

    def __init__(self, tokenizer_json: bytes, special_tokens: bool) -> None:
        """Parse a tokenizer.json; raises what tokie raises."""
        import tokie

        # tokie reads from a path only: give it the bytes that were hashed, not the file as it is by now.
        with tempfile.NamedTemporaryFile(suffix=".json") as copy:
            copy.write(tokenizer_json)
            copy.flush()
            self._tokenizer: Any = tokie.Tokenizer.from_json(copy.name)  # its stubs lag behind
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._special_tokens = special_tokens

    def encode(self, texts: list[str]) -> tuple[Ids, Lengths]:
        """See `TokenizerBackend.encode`."""
        ids, lengths = self._tokenizer.encode_batch_flat(texts, add_special_tokens=self._special_tokens)
        return ids.view(np.int32), lengths.view(np.int64)


def keep_ends(ids: Ids, max_tokens: int, last_tokens: int) -> Ids:
    """The ids of one text, int32 (length,), within a budget: of more, the first ones and the last `last_tokens`."""
    if len(ids) <= max_tokens:
        return ids
    return np.concatenate([ids[: max_tokens - last_tokens], ids[len(ids) - last_tokens :]])


def encode(backend: TokenizerBackend, texts: list[str]) -> tuple[Ids, Lengths]:
    """Tokenize; lone surrogates, which no tokenizer takes, become replacement characters."""
    try:
        return backend.encode(texts)
    except (UnicodeEncodeError, TypeError):
        return backend.encode([text.encode("utf-8", "replace").decode("utf-8") for text in texts])
