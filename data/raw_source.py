"""Opens the bytes and the text of a source: files and standard input, compressed or not, in any encoding."""

from __future__ import annotations

import codecs
import functools
import gzip
import io
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

from ..routers.errors import DataError, InputError, require

#: As a source: standard input.
STANDARD = "-"
#: The format of a file by its suffix. A name with another suffix that is no file is taken as a hub id.
SUFFIXES = {
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".txt": "txt",
    ".xlsx": "xlsx",
}
FORMATS = ("parquet", "jsonl", "json", "csv", "tsv", "txt", "xlsx")
_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
#: First bytes of formats that are not text.
_BINARY = {b"PAR1": "parquet", b"PK\x03\x04": "xlsx"}
#: Byte order marks, the longer ones first: that of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
#: Bytes that are read to tell an encoding, a format or a dialect.
HEAD = 1 << 16
#: Lines of a block.
_LINES = 128
_IN_MEMORY = 1 << 26


@dataclass(frozen=True)
class SourceOptions:
    """What a source does not say of itself.

    Attributes:
        encoding: the encoding of text, such as "cp1252"; None: by its byte order mark, otherwise UTF-8.
        format: one of parquet, jsonl, json, csv, tsv, txt and xlsx; None: by the suffix, of standard input by its
            first bytes.
    """

    encoding: str | None = None
    format: str | None = None

    def __post_init__(self) -> None:
        """Refuse names of encodings and formats that there are not."""
        if self.format is not None and self.format not in FORMATS:
            raise InputError(f"--format {self.format!r}; expected one of {', '.join(FORMATS)}")
        if self.encoding is not None:
            try:
                b"a".decode(self.encoding, "replace")  # refuses codecs that do not give text, such as base64
            except (LookupError, UnicodeError):
                raise InputError(
                    f"--encoding {self.encoding!r} is not known; expected a name such as utf-8, utf-16 or cp1252"
                ) from None


@dataclass
class RawSource:
    """The bytes of one source, which can be opened several times.

    Attributes:
        name: the name for messages.
        path: the file; None: standard input.
        options: what the source does not say of itself.
    """

    name: str
    path: Path | None
    options: SourceOptions

    @property
    def format(self) -> str | None:
        """The format, as the options or the suffix tell it."""
        if self.options.format is not None:
            return self.options.format
        return None if self.path is None else format_of(self.path)

    def open_bytes(self) -> IO[bytes]:
        """Open the source at its start, decompressed.

        Raises:
            DataError: it cannot be read.
        """
        raw = self._raw()
        magic = raw.read(4)
        raw.seek(0)
        packed = next((name for start, name in _MAGIC.items() if magic.startswith(start)), None)
        if packed == "gzip":
            return gzip.open(raw, "rb")  # type: ignore[return-value]
        if packed == "zstd":
            arrow: Any = require("pyarrow", "data")
            return arrow.CompressedInputStream(raw, "zstd")  # type: ignore[no-any-return]
        return raw

    def open_seekable(self) -> IO[bytes]:
        """Open the source at its start, for a reader that jumps in it.

        Raises:
            DataError: it cannot be read.
        """
        file = self.open_bytes()
        if file.seekable():
            return file
        with file:
            return io.BytesIO(self.guarded(file.read))

    def open_text(self) -> io.TextIOWrapper:
        """Open the source as text. Bytes that are not text become lone surrogates, which `undecodable` finds.

        Raises:
            DataError: it cannot be read, or is not text.
        """
        with self.open_bytes() as file:
            head = self.guarded(lambda: file.read(HEAD))
        kind = binary_format(head)
        if kind is not None:
            raise DataError(self.name, None, None, f"its content is {kind}, not text", f"text, or --format {kind}")
        encoding = self.options.encoding or self._encoding(head)
        opened = self.open_bytes()
        buffered = opened if isinstance(opened, io.BufferedIOBase) else io.BufferedReader(_Readable(opened))
        return io.TextIOWrapper(buffered, encoding=encoding, errors="surrogateescape", newline="")

    def lines(self, newline: str = "") -> Iterator[str]:
        """The lines of the text with their ends.

        Args:
            newline: what ends a line: "" for CR, LF and both together; a line feed for LF alone.
        """
        return chain.from_iterable(self.blocks(newline))

    def blocks(self, newline: str = "") -> Iterator[list[str]]:
        """The lines of the text with their ends, some hundred at a time, which is faster than one by one.

        Args:
            newline: as for `lines`.

        Raises:
            DataError: the text cannot be read on; the lines before were given.
        """
        with self.open_text() as text:
            text.reconfigure(newline=newline)
            number = 0
            failed: Exception | None = None
            while failed is None:
                block: list[str] = []
                try:
                    block.extend(islice(text, _LINES))  # keeps the lines before an error
                except (UnicodeError, EOFError, OSError, ValueError, zlib.error) as error:
                    failed = error
                if not block:
                    break
                number += len(block)
                yield block
            if failed is not None:
                expected = f"text in {text.encoding}, whole and readable; or its encoding with --encoding"
                raise DataError(self.name, None, None, f"line {number + 1}: {failed}", expected) from failed

    def undecodable(self, row: int | None, column: str | None, text: str) -> DataError | None:
        """The error of a text that holds bytes of another encoding; None: it is text."""
        try:
            text.encode()
        except UnicodeEncodeError as error:
            code = ord(text[error.start])
            if 0xDC80 <= code <= 0xDCFF:
                encoding = self.options.encoding or "UTF-8"
                problem = f"byte 0x{code - 0xDC00:02x} is not {encoding}"
                return DataError(self.name, row, column, problem, "UTF-8, or its encoding, as in --encoding cp1252")
            return lone_surrogate(self.name, row, column, code)
        return None

    def guarded(self, read: Any) -> Any:
        """What `read` gives.

        Raises:
            DataError: the compressed file is broken.
        """
        try:
            return read()
        except (EOFError, OSError, zlib.error) as error:
            raise DataError(self.name, None, None, f"cannot be read ({error})", "a whole, readable file") from error

    def _raw(self) -> IO[bytes]:
        if self.path is not None:
            try:
                return self.path.open("rb")
            except OSError as error:
                raise InputError(f"{self.name} cannot be opened: {error.strerror}; expected a readable file") from error
        kept = _standard_input(sys.stdin.buffer)
        kept.seek(0)
        return _Kept(kept)  # type: ignore[return-value]

    def _encoding(self, head: bytes) -> str:
        found = next((name for mark, name in _MARKS if head.startswith(mark)), None)
        if found is None and b"\0" in head[:1024]:
            name = "utf-16-le" if head[1:2] == b"\0" else "utf-16-be"
            expected = f"text; try --encoding {name}, or --encoding utf-8 where the zero bytes belong to the text"
            raise DataError(self.name, None, None, "zero bytes in the text", expected)
        return found or "utf-8"


def is_text(text: str) -> bool:
    """Whether a text holds whole characters only: no bytes of another encoding, and no half of a character."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def lone_surrogate(name: str, row: int | None, column: str | None, code: int) -> DataError:
    """The error of half a character, as a stream that was cut in the middle leaves it."""
    problem = f"half a character (\\u{code:04x})"
    return DataError(name, row, column, problem, "whole characters; leave the row out with --skip-bad")


def binary_format(head: bytes) -> str | None:
    """The format of a file that is not text, by its first bytes; None: it may be text."""
    return next((kind for magic, kind in _BINARY.items() if head.startswith(magic)), None)


def format_of(path: Path) -> str | None:
    """The format of a file by its suffix, behind that of a compression; None: the suffix is unknown."""
    suffix = path.suffix.lower()
    if suffix in _COMPRESSIONS:
        suffix = Path(path.stem).suffix.lower()
    return SUFFIXES.get(suffix)


@functools.lru_cache(maxsize=1)
def _standard_input(stream: IO[bytes]) -> IO[bytes]:
    """What stands in standard input, kept, because a command may open it more than once."""
    kept = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - as long as the process
    shutil.copyfileobj(stream, kept)
    return kept


class _Readable(io.RawIOBase):
    """A stream of any library as one that `io.BufferedReader` takes."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        found = self._file.read(len(buffer))
        buffer[: len(found)] = found
        return len(found)

    def close(self) -> None:
        self._file.close()
        super().close()


class _Kept(_Readable):
    """Standard input: it stays when a reader closes it."""

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        io.RawIOBase.close(self)


Row = Mapping[str, Any]
Item = tuple[int, Row | DataError]
