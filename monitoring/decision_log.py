"""A log of decisions, one JSON object a line, from which other policies can be evaluated later (off_policy.py)."""

from __future__ import annotations

import hashlib
import json
import logging
import logging.handlers
import math
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..routers.base import Decision
from ..routers.checks import as_number
from ..routers.errors import InputError
from ..routers.query import Query, turns

logger = logging.getLogger(__name__)

MAX_BYTES = 64 << 20
BACKUPS = 5
#: Bytes of a query's hash.
HASH_BYTES = 16
_LONGEST_KEY = 64  # of blake2b


class _File(logging.handlers.RotatingFileHandler):
    """A rotated file for its owner's eyes. Lines go past `emit`, whose records and calls of stat cost 40 us a line."""

    def __init__(self, path: Path, max_bytes: int, backups: int, flush_every: int) -> None:
        self._flush_every, self._unflushed, self._size, self._torn = flush_every, 0, 0, False
        super().__init__(path, maxBytes=max_bytes, backupCount=backups, encoding="ascii")

    def _open(self) -> Any:
        stream = open(self.baseFilename, "a", encoding="ascii", opener=_private)  # noqa: SIM115 - the handler closes it
        self._size = os.fstat(stream.fileno()).st_size
        return stream

    def write(self, line: str) -> None:
        """Append a line of ASCII; raises OSError."""
        self._torn, torn = True, self._torn
        if self.stream is None:  # closed, or lost in a rotation that failed
            self.stream = self._open()
        if self._size and self._size + len(line) > self.maxBytes:
            self.doRollover()
        # What a failed write left of a line must not spoil the next one.
        stream: Any = self.stream
        self._size += stream.write(f"\n{line}\n" if torn else f"{line}\n")
        self._unflushed += 1
        if self._unflushed >= self._flush_every:
            self.flush()
        self._torn = False

    def flush(self) -> None:
        self._unflushed = 0
        super().flush()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


class DecisionLog:
    """Writes decisions to a file that is rotated by its size. Safe to share between threads; one process a file.

    Prompts are not kept but for a keyed hash (BLAKE2b, RFC 7693), by which equal
    prompts can be told. Writing never raises once the log is open: what
    cannot be written (a full disk) is counted, and said in the log once.

    Attributes:
        written: lines written.
        failed: lines that could not be written.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        max_bytes: int = MAX_BYTES,
        backups: int = BACKUPS,
        keep_prompts: bool = False,
        salt: str | bytes | None = None,
        context_keys: Sequence[str] = (),
        flush_every: int = 1,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open the file, to append.

        Args:
            path: of the newest lines; older files are called path.1, path.2, ...
            max_bytes: of a file before it is rotated.
            backups: older files kept.
            keep_prompts: write the queries themselves.
            salt: key of the hashes: the same salt, the same hashes. Keep it secret: who knows it can try out prompts.
                None: a random one that nobody learns, so that hashes of another run cannot be compared.
            context_keys: keys of the context that are written; of others, nothing.
            flush_every: lines after which the file is flushed; a crash of the process loses fewer.
            clock: seconds since 1970.

        Raises:
            InputError: the file cannot be opened, or an argument is out of its range.
        """
        if max_bytes < 1 or backups < 1 or flush_every < 1:
            raise InputError(f"max_bytes {max_bytes}, backups {backups}, flush_every {flush_every}: expected 1 or more")
        key = secrets.token_bytes(HASH_BYTES) if salt is None else salt.encode() if isinstance(salt, str) else salt
        self._key = key if len(key) <= _LONGEST_KEY else hashlib.blake2b(key).digest()
        self._keep_prompts, self._context_keys, self._clock = keep_prompts, tuple(context_keys), clock
        self._lock = threading.Lock()
        self.written = self.failed = 0
        try:
            self._file = _File(Path(path), max_bytes, backups, flush_every)
        except OSError as error:
            raise InputError(f"the decision log {path} cannot be opened: {error}") from error

    def write(
        self,
        query: Query,
        decision: Decision,
        *,
        id: str | None = None,
        policy: str | None = None,
        latency_s: float | None = None,
        context: Mapping[str, str] | None = None,
    ) -> str:
        """Write one decision.

        Args:
            query: what was routed.
            decision: what was decided.
            id: of the request; None: a new one.
            policy: a name of the policy that decided.
            latency_s: seconds that routing took.
            context: of the request; only the allowed keys are written.

        Returns:
            The id, for `write_outcome`.
        """
        found = id or secrets.token_hex(16)
        text = _text(query)
        row: dict[str, Any] = {
            "time": self._clock(),
            "id": found,
            "query_hash": self.query_hash(text),
            "characters": len(text),
            "model": decision.model,
            "score": _finite(decision.score),
            "threshold": _finite(decision.threshold),
            "candidates": decision.candidates,
            "source": decision.source,
            "cause": decision.cause,
            "propensity": decision.propensity,
            "truncated": decision.truncated,
            "policy": policy,
            "latency_s": _finite(latency_s),
            "context": {key: context[key] for key in self._context_keys if context and key in context},
        }
        if self._keep_prompts:
            row["query"] = query
        self._write(row)
        return found

    def write_outcome(self, id: str, outcome: float) -> None:
        """Write what became of a request; `read_log` puts it into its row.

        Args:
            id: what `write` returned.
            outcome: how good the answer was, the more the better; [0, 1] by custom.

        Raises:
            InputError: it is no number.
        """
        if _finite(outcome) is None:
            raise InputError(f"outcome {outcome!r} of request {id}; expected a number")
        self._write({"time": self._clock(), "id": id, "outcome": _finite(outcome)})

    def query_hash(self, text: str) -> str:
        """The hash that stands for a text."""
        data = text.encode("utf-8", "surrogatepass")
        return hashlib.blake2b(data, digest_size=HASH_BYTES, key=self._key).hexdigest()

    def flush(self) -> None:
        """Hand what was written to the operating system."""
        with self._lock:
            try:
                self._file.flush()
            except OSError:
                self._fail()

    def close(self) -> None:
        """Flush and close; a later write opens the file again."""
        with self._lock:
            try:
                self._file.close()
            except OSError:
                self._fail()

    def _write(self, row: dict[str, Any]) -> None:
        try:
            line = json.dumps(row, default=_plain)
        except (TypeError, ValueError):  # a query of odd objects, kept on request
            line = json.dumps({**row, "query": repr(row.get("query"))}, default=_plain)
        with self._lock:
            try:
                self._file.write(line)
                self.written += 1
            except OSError:
                self._fail()

    def _fail(self) -> None:
        """Count a failure, and say so the first time; an error is being handled, and the lock is held."""
        if not self.failed:
            logger.exception("the decision log cannot be written; requests go on, failures are counted")
        self.failed += 1


def read_log(path: str | Path) -> Iterator[dict[str, Any]]:
    """The rows of a log, oldest first, rotated files included.

    An outcome that was written for an id is the row's "outcome"; where there are several, the last. A line that is
    broken (the process was killed in it) is left out, and their number is logged.

    Args:
        path: of the newest file, as `DecisionLog` got it.

    Raises:
        InputError: there is no such log.
    """
    path = Path(path)
    numbered = [
        (int(file.suffix[1:]), file) for file in path.parent.glob(f"{path.name}.*") if file.suffix[1:].isdigit()
    ]
    files = [file for _, file in sorted(numbered, reverse=True)] + ([path] if path.is_file() else [])
    if not files:
        raise InputError(f"there is no decision log at {path}")
    outcomes = {row["id"]: row["outcome"] for row in _rows(files) if "outcome" in row}
    return _joined(files, outcomes)


def _joined(files: Sequence[Path], outcomes: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for row in _rows(files, tell=True):
        if "outcome" not in row:
            yield {**row, "outcome": outcomes[row["id"]]} if row["id"] in outcomes else row


def _rows(files: Sequence[Path], tell: bool = False) -> Iterator[dict[str, Any]]:
    broken = 0
    for file in files:
        with file.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    row = json.loads(line)
                except ValueError:
                    broken += bool(line.strip())
                    continue
                if isinstance(row, dict) and isinstance(row.get("id"), str):
                    yield row
                else:
                    broken += 1
    if broken and tell:
        logger.warning("%d broken lines of the decision log were left out", broken)


def _text(query: Query) -> str:
    """What a query says: a prompt, or the turns of a chat, oldest first; empty where it is neither."""
    try:
        return "\n".join(turns(query))
    except InputError:
        return ""


def _finite(value: float | None) -> float | None:
    number = None if value is None else as_number(value)
    return number if number is not None and math.isfinite(number) else None


def _plain(value: object) -> object:
    """What JSON has no form for, as a list or as text."""
    return list(value) if isinstance(value, Sequence) else str(value)
