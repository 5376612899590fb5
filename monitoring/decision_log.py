"""A log of decisions, one JSON object a line. Other policies can be evaluated from it later (off_policy.py)."""

from __future__ import annotations

import hashlib
import json
import logging
import logging.handlers
import math
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..routers.checks import as_number
from ..routers.decision import Decision
from ..routers.errors import InputError
from ..routers.forks import new_lock
from ..routers.query import Query, turns

logger = logging.getLogger("routelearn.monitoring")

MAX_BYTES = 64 << 20
BACKUPS = 5
#: Length of the hash of a query, in bytes.
HASH_BYTES = 16
#: Longest key that BLAKE2b takes, in bytes.
_LONGEST_KEY = 64


class _File(logging.handlers.RotatingFileHandler):
    """A rotated file that only its owner can read.

    `write` takes the place of `emit`, which makes a record and calls stat for each line: 40 us a line.
    """

    def __init__(self, path: Path, max_bytes: int, backups: int, flush_every: int) -> None:
        self._flush_every, self._unflushed, self._size, self._torn = flush_every, 0, 0, False
        super().__init__(path, maxBytes=max_bytes, backupCount=backups, encoding="ascii")

    def _open(self) -> Any:
        stream = open(self.baseFilename, "a", encoding="ascii", opener=_private)  # noqa: SIM115 - the handler closes it
        self._size = os.fstat(stream.fileno()).st_size
        return stream

    def write(self, line: str) -> None:
        """Append a line of ASCII text; raises OSError when that fails."""
        self._torn, torn = True, self._torn
        if self.stream is None:  # closed, or lost in a rotation that failed
            self.stream = self._open()
        if self._size and self._size + len(line) > self.maxBytes:
            self.doRollover()
        # A failed write may have left half a line, which must not spoil the next line.
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
    """Writes decisions to a file that is rotated by size. Safe to share between threads; use one process a file.

    By default the log holds no prompts, only a keyed hash of each (BLAKE2b, RFC 7693), so that equal prompts can be
    recognised. Once the log is open, writing never raises: a line that cannot be written (for example on a full disk)
    is counted, and the first such failure is logged.

    Attributes:
        written: number of lines written.
        failed: number of lines that could not be written.

    Example:
        >>> import routelearn
        >>> from routelearn.monitoring import DecisionLog, read_log
        >>> router, log = routelearn.load("router/"), DecisionLog("log-example.jsonl")
        >>> request = log.write("What is 2 plus 2?", router.route("What is 2 plus 2?"))
        >>> log.write_outcome(request, 1.0)
        >>> [row["outcome"] for row in read_log("log-example.jsonl") if row["id"] == request]
        [1.0]
        >>> log.close()
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
        """Open the file and append to it.

        Args:
            path: the file with the newest lines. Older files are called path.1, path.2, and so on.
            max_bytes: size at which the file is rotated, in bytes.
            backups: number of older files to keep.
            keep_prompts: write the queries themselves as well.
            salt: key of the hashes; the same salt gives the same hashes. Keep it secret: with it, one can try out
                prompts. None: a random key that is not kept, so that the hashes of two runs cannot be compared.
            context_keys: keys of the context that are written. Other keys are not written.
            flush_every: number of lines after which the file is flushed. A crash of the process loses fewer lines
                than this.
            clock: returns the time in seconds since 1970.

        Raises:
            InputError: the file cannot be opened, or an argument is out of its range.
        """
        if max_bytes < 1 or backups < 1 or flush_every < 1:
            raise InputError(
                f"max_bytes is {max_bytes}, backups {backups}, flush_every {flush_every}; expected 1 or more of each"
            )
        key = secrets.token_bytes(HASH_BYTES) if salt is None else salt.encode() if isinstance(salt, str) else salt
        self._key = key if len(key) <= _LONGEST_KEY else hashlib.blake2b(key).digest()
        self._keep_prompts, self._context_keys, self._clock = keep_prompts, tuple(context_keys), clock
        self._lock = new_lock()
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
            query: the query that was routed.
            decision: the decision.
            id: identifier of the request; None: a new random one.
            policy: name of the policy that decided.
            latency_s: time that routing took, in seconds.
            context: context of the request. Only the keys in `context_keys` are written.

        Returns:
            The identifier of the request, which `write_outcome` takes.
        """
        request_id = id or secrets.token_hex(16)
        text = _text(query)
        row: dict[str, Any] = {
            "time": self._clock(),
            "id": request_id,
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
        return request_id

    def write_outcome(self, id: str, outcome: float) -> None:
        """Write the outcome of a request. `read_log` adds it to the row of the request.

        Args:
            id: the identifier that `write` returned.
            outcome: how good the answer was; larger is better, customarily in [0, 1].

        Raises:
            InputError: the outcome is not a finite number.
        """
        if _finite(outcome) is None:
            raise InputError(f"outcome {outcome!r} of request {id}; expected a finite number")
        self._write({"time": self._clock(), "id": id, "outcome": _finite(outcome)})

    def query_hash(self, text: str) -> str:
        """The hash of a text, as hexadecimal digits."""
        data = text.encode("utf-8", "surrogatepass")
        return hashlib.blake2b(data, digest_size=HASH_BYTES, key=self._key).hexdigest()

    def flush(self) -> None:
        """Hand the written lines to the operating system."""
        with self._lock:
            try:
                self._file.flush()
            except OSError:
                self._fail()

    def close(self) -> None:
        """Flush and close the file. A later write opens it again."""
        with self._lock:
            try:
                self._file.close()
            except OSError:
                self._fail()

    def _write(self, row: dict[str, Any]) -> None:
        try:
            line = json.dumps(row, default=_plain)
        except (TypeError, ValueError):  # the query holds objects that JSON has no form for
            line = json.dumps({**row, "query": repr(row.get("query"))}, default=_plain)
        with self._lock:
            try:
                self._file.write(line)
                self.written += 1
            except OSError:
                self._fail()

    def _fail(self) -> None:
        """Count a failure and log the first one. Call it from an exception handler, with the lock held."""
        if not self.failed:
            logger.exception("the decision log cannot be written; requests go on, failures are counted")
        self.failed += 1


def read_log(path: str | Path) -> Iterator[dict[str, Any]]:
    """Read the rows of a log, oldest first, rotated files included.

    The last outcome that was written for a request is the "outcome" of its row. Broken lines (the process was killed
    while it wrote them) are left out, and their number is logged.

    Args:
        path: the path that `DecisionLog` was given.

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
    for row in _rows(files, log_broken=True):
        if "outcome" not in row:
            yield {**row, "outcome": outcomes[row["id"]]} if row["id"] in outcomes else row


def _rows(files: Sequence[Path], log_broken: bool = False) -> Iterator[dict[str, Any]]:
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
    if broken and log_broken:
        logger.warning("%d broken lines of the decision log were left out", broken)


def _text(query: Query) -> str:
    """The text of a query: a prompt, or the turns of a chat, oldest first. It is empty for anything else."""
    try:
        return "\n".join(turns(query))
    except InputError:
        return ""


def _finite(value: float | None) -> float | None:
    number = None if value is None else as_number(value)
    return number if number is not None and math.isfinite(number) else None


def _plain(value: object) -> object:
    """A value that JSON has no form for, as a list or as text."""
    return list(value) if isinstance(value, Sequence) else str(value)
