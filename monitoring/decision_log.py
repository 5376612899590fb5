"""A log of decisions, one JSON object a line. Other policies can be evaluated from it later (off_policy.py)."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..routers.checks import as_number, check_path
from ..routers.decision import Decision
from ..routers.errors import InputError
from ..routers.forks import new_lock
from ..routers.query import Query, turns
from .log_rows import OUTCOMES
from .repeats import RecentKeys
from .rotated_file import RotatedFile
from .served_call import ServedCall

logger = logging.getLogger("routelearn.monitoring")

MAX_BYTES = 64 << 20
BACKUPS = 5
#: Length of the hash of a query, in bytes.
HASH_BYTES = 16
#: Longest key that BLAKE2b takes, in bytes.
_LONGEST_KEY = 64
#: So many of the newest decisions are known by their ids; outcomes of others go to the second file.
KNOWN_IDS = 100_000


class DecisionLog:
    """Writes decisions to a file that is rotated by size. Safe to share between threads; use one process a file.

    By default the log holds no prompts, only a keyed hash of each (BLAKE2b, RFC 7693), so that equal prompts can be
    recognised. Once the log is open, writing never raises: a line that cannot be written (for example on a full disk)
    is counted, and the first such failure is logged. When somebody else moves or removes the file, the next line opens
    it again at its path.

    Outcomes of decisions that this object did not write (of an earlier process, or invented) go to a file of their own,
    PATH.outcomes, so that no number of them pushes decisions out.

    Example:
        >>> import routelearn
        >>> from routelearn.monitoring import DecisionLog, read_log
        >>> router, log = routelearn.load("router/"), DecisionLog("log-example.jsonl")
        >>> request = log.write("What is 2 plus 2?", router.route("What is 2 plus 2?"))
        >>> log.write_outcome(request, 1.0)
        True
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
        check_path("path", path)
        if max_bytes < 1 or backups < 1 or flush_every < 1:
            raise InputError(
                f"max_bytes is {max_bytes}, backups {backups}, flush_every {flush_every}; expected 1 or more of each"
            )
        self._key = secrets.token_bytes(HASH_BYTES) if salt is None else _key_of(salt)
        self._keep_prompts, self._context_keys, self._clock = keep_prompts, tuple(context_keys), clock
        self._lock = new_lock()
        self._ids = RecentKeys(KNOWN_IDS)
        try:
            self._file = RotatedFile(Path(path), max_bytes, backups, flush_every)
        except OSError as error:
            raise InputError(f"the decision log {path} cannot be opened: {error}") from error
        # Opened with its first line.
        self._others = RotatedFile(Path(f"{path}{OUTCOMES}"), max_bytes, backups, flush_every, delay=True)

    @property
    def written(self) -> int:
        """Number of lines in the files."""
        return self._file.written + self._others.written

    @property
    def failed(self) -> int:
        """Number of lines that could not be written."""
        return self._file.failed + self._others.failed

    def write(
        self,
        query: Query,
        decision: Decision,
        *,
        id: str | None = None,
        policy: str | None = None,
        latency_s: float | None = None,
        context: Mapping[str, str] | None = None,
        session: str | None = None,
        served: str | None = None,
    ) -> str:
        """Write one decision.

        Args:
            query: the query that was routed.
            decision: the decision.
            id: identifier of the request; None: a new random one.
            policy: name of the policy that decided.
            latency_s: time that routing took, in seconds.
            context: context of the request. Only the keys in `context_keys` are written.
            session: the session of the request; its hash is written.
            served: in shadow mode, the model that answers whatever was decided. The row then has "shadow": true.

        Returns:
            The identifier of the request, which `write_outcome` and `write_usage` take.
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
        if session is not None:
            row["session"] = self.query_hash(session)
        if served is not None:
            row |= {"shadow": True, "served": served}
        if self._keep_prompts:
            row["query"] = query
        line = _line(row)
        with self._lock:
            self._ids.add(hash(request_id))
            self._file.write(line)
        return request_id

    def write_outcome(self, id: str, outcome: float) -> bool:
        """Write the outcome of a request. `read_log` adds it to the row of the request.

        Args:
            id: the identifier that `write` returned.
            outcome: how good the answer was; larger is better, customarily in [0, 1].

        Returns:
            Whether this object knows the request, as one of its newest 100,000.

        Raises:
            InputError: the outcome is not a finite number.
        """
        if _finite(outcome) is None:
            raise InputError(f"outcome {outcome!r} of request {id}; expected a finite number")
        return self._write_later(id, {"outcome": _finite(outcome)})

    def write_usage(self, id: str, call: ServedCall) -> bool:
        """Write what one call of a request used. `read_log` adds all calls of a request to its row.

        Args:
            id: the identifier that `write` returned.
            call: the call; of its session, the hash is written.

        Returns:
            Whether this object knows the request, as one of its newest 100,000.
        """
        usage = call.as_dict()
        if call.session is not None:
            usage["session"] = self.query_hash(call.session)
        return self._write_later(id, {"usage": usage})

    def _write_later(self, id: str, found: Mapping[str, Any]) -> bool:
        """Write what is known of a request after its decision; returns whether this object wrote the decision."""
        line = _line({"time": self._clock(), "id": id, **found})
        with self._lock:
            known = hash(id) in self._ids
            (self._file if known else self._others).write(line)
        return known

    def query_hash(self, text: str) -> str:
        """The hash of a text, as hexadecimal digits."""
        return _hash(text, self._key)

    def flush(self) -> None:
        """Hand the written lines to the operating system."""
        with self._lock:
            self._file.flush()
            self._others.flush()

    def close(self) -> None:
        """Flush and close the files. A later write opens them again."""
        with self._lock:
            self._file.close()
            self._others.close()


def query_hash(query: Query, salt: str | bytes) -> str:
    """The hash of a query, as a log with this salt writes it, as hexadecimal digits.

    Args:
        query: a prompt or a chat.
        salt: the salt that `DecisionLog` was given.
    """
    return _hash(_text(query), _key_of(salt))


def _key_of(salt: str | bytes) -> bytes:
    key = salt.encode() if isinstance(salt, str) else salt
    return key if len(key) <= _LONGEST_KEY else hashlib.blake2b(key).digest()


def _hash(text: str, key: bytes) -> str:
    data = text.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=HASH_BYTES, key=key).hexdigest()


def _line(row: dict[str, Any]) -> str:
    try:
        return _ENCODER.encode(row)
    except (TypeError, ValueError):  # the query holds objects that JSON has no form for
        return _ENCODER.encode({**row, "query": repr(row.get("query"))})


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


#: `json.dumps` would make one for each line.
_ENCODER = json.JSONEncoder(default=_plain)
