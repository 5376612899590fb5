"""Settings of the services and their defaults: the command, the HTTP service and the gateways read them here."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from ..routers.errors import InputError

#: The address that only this machine can reach.
LOCAL_ADDRESS = "127.0.0.1"

#: Most sessions that a service remembers.
MOST_SESSIONS = 100_000

LogLevel = Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True, slots=True)
class _Limits:
    """Limits that are all above 0."""

    def __post_init__(self) -> None:
        """Refuse a limit that lets nothing through.

        Raises:
            InputError: a limit is not above 0.
        """
        for limit in fields(self):
            value = getattr(self, limit.name)
            if not value > 0:
                seconds = limit.name.endswith("_s")
                expected = "a number of seconds above 0" if seconds else "a whole number of 1 or more"
                raise InputError(f"{limit.name} is {value}; expected {expected}")


@dataclass(frozen=True, slots=True)
class BatchLimits(_Limits):
    """Limits of a `Batcher`, and so of a `Gateway`.

    Attributes:
        max_batch: most requests in one batch. It bounds how long a request waits for the requests before it, and
            how long the worker thread holds the interpreter.
        max_waiting: most requests that wait for a batch; further requests get the safe answer at once.
        timeout_s: longest that a request waits, in seconds; then it gets the safe answer.

    Raises:
        InputError: a limit is not above 0.

    Example:
        >>> from routelearn.service import BatchLimits
        >>> BatchLimits(timeout_s=0.2)
        BatchLimits(max_batch=32, max_waiting=1000, timeout_s=0.2)
    """

    max_batch: int = 32
    max_waiting: int = 1_000
    timeout_s: float = 1.0


@dataclass(frozen=True, slots=True)
class RequestLimits(_Limits):
    """Limits of the requests to the HTTP service; each is an option of `routelearn serve`.

    Attributes:
        max_body: largest body of a request, in bytes; a larger body is answered with 413. Parsing a body blocks the
            interpreter, and so the event loop, for some 3 ms per MiB.
        max_queries: largest number of queries in a request; a request with more is answered with 422.
        max_characters: largest number of characters in a query, all turns of a chat together; a request with a longer
            query is answered with 422.
        max_waiting: largest number of requests in the service (being read, waiting or being scored); further requests
            are answered with 429.
        max_batch: largest number of queries in one run of the router; a larger request takes several runs.
        body_timeout_s: time limit for the arrival of a body, in seconds; a slower body is answered with 408.
        request_timeout_s: time limit from the arrival of the whole body to the reply, in seconds; after it the reply is
            503.

    Raises:
        InputError: a limit is not above 0.

    Example:
        >>> from routelearn.service import RequestLimits
        >>> RequestLimits(max_queries=100).max_characters
        100000
    """

    max_body: int = 1 << 20
    max_queries: int = 1_024
    max_characters: int = 100_000
    max_waiting: int = 256
    max_batch: int = 256
    body_timeout_s: float = 10.0
    request_timeout_s: float = 30.0


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """How the process of the HTTP service listens, logs and ends; each is an option of `routelearn serve`.

    Attributes:
        host: address to listen on.
        port: port to listen on; 0 takes any free port.
        keep_alive_s: seconds after which an idle connection is closed.
        shutdown_timeout_s: after SIGTERM, requests in flight get this many seconds to finish.
        log_level: least severe messages that are logged.

    Example:
        >>> from routelearn.service import ServerSettings
        >>> ServerSettings(port=0).host
        '127.0.0.1'
    """

    host: str = LOCAL_ADDRESS
    port: int = 8000
    keep_alive_s: int = 30
    shutdown_timeout_s: int = 30
    log_level: LogLevel = "info"
