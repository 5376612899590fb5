"""The connection to a Redis or Valkey that replicas share: bounded waits, and no waits while it is down."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit

from ..routers.checks import check_seconds
from ..routers.errors import InputError, require
from ..routers.forks import renew_in_child

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Where a store may be.
SCHEMES = ("redis", "rediss", "unix")
#: Seconds between two tries of a store that is down.
_AGAIN_S = 0.5
#: More connections than threads ask at a time.
_CONNECTIONS = 1000


class StoreDownError(Exception):
    """The store did not do what it was asked to do."""


class Script:
    """A script in Lua, which a store runs as one step.

    Attributes:
        text: the script.
        digest: what the store knows it by.
    """

    def __init__(self, text: str) -> None:
        self.text, self.digest = text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class RedisLink:
    """Asks a Redis or Valkey that may go down at any time. Threads may share one.

    An error counts as the store being down: until a try in the background succeeds, nothing is sent, so that only the
    requests that notice it wait, and each of them for `timeout_s` at most for a connection and as long for an answer.
    A server that refuses to write is down as well.

    Attributes:
        prefix: what all keys begin with.
        place: where the store is, without user and password.
        errors: requests that failed, since the start.

    Example:
        >>> from routelearn.service import RedisLink
        >>> link = RedisLink("redis://user:secret@localhost:1/0")  # nobody is there
        >>> link.place, link.down
        ('redis://localhost:1', True)
        >>> link.close()
    """

    def __init__(self, url: str, *, prefix: str = "routelearn:", timeout_s: float = 0.1) -> None:
        """Connect; a store that is down is tried again in the background.

        Args:
            url: redis://, rediss:// (TLS) or unix://, with user and password if the server wants them. One server, or
                one address that leads to the primary: sentinels and clusters are not asked.
            prefix: what all keys begin with; replicas with one store need one prefix.
            timeout_s: seconds to wait for a connection, and for an answer.

        Raises:
            InputError: an argument cannot be used.
            MissingExtraError: redis is not installed.
        """
        if not isinstance(prefix, str):
            raise InputError(f"prefix is {prefix!r:.80}; expected a text")
        check_seconds("timeout_s", timeout_s, or_none=False)
        self.place = place_of(url)
        self.prefix, self._url, self._timeout_s = prefix, url, timeout_s
        self._redis: Any = require("redis", "redis")
        self.errors = 0
        self._down_s = 0.0
        self._down_since: float | None = None
        self._closed = False
        self._begin()
        renew_in_child(self, RedisLink._begin)
        self._try()

    @property
    def down(self) -> bool:
        """Whether the store is down."""
        return self._down_since is not None

    @property
    def down_s(self) -> float:
        """Seconds that the store was down since the start."""
        since = self._down_since
        return self._down_s + (0.0 if since is None else time.monotonic() - since)

    def key(self, kind: str, name: str) -> str:
        """The store's key of a thing of one kind."""
        return f"{self.prefix}{kind}:{name}"

    def ask(self, question: Callable[[Any], T]) -> T:
        """Ask the store.

        Args:
            question: called with the client of redis.

        Raises:
            StoreDownError: the store is down, or it went down.
        """
        if self._down_since is not None:
            self._look_after()
            raise StoreDownError
        try:
            return question(self._client)
        except Exception as error:  # noqa: BLE001 - the client raises errors of many kinds, of its own and of sockets
            self._failed(error)
            raise StoreDownError from None

    def run(self, script: Script, keys: Sequence[str], arguments: Sequence[str | bytes | int]) -> Any:
        """Run a script on the store; its answer.

        Args:
            script: the script, which the store keeps after the first time.
            keys: the keys that it reads or writes.
            arguments: its arguments.

        Raises:
            StoreDownError: as `ask` raises it.
        """

        def question(client: Any) -> Any:
            try:
                return client.evalsha(script.digest, len(keys), *keys, *arguments)
            except self._redis.exceptions.NoScriptError:
                return client.eval(script.text, len(keys), *keys, *arguments)

        return self.ask(question)

    def close(self) -> None:
        """Close the connections. The store counts as down from now on."""
        self._closed = True
        with self._lock:
            self._down_since = self._down_since or time.monotonic()
        self._stop.set()
        self._client.close()

    def _begin(self) -> None:
        """Make the locks and connections of this process: a forked child must not use its parent's."""
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._trying: threading.Thread | None = None
        retry = require("redis.retry", "redis").Retry(require("redis.backoff", "redis").NoBackoff(), 0)
        try:
            self._client: Any = self._redis.Redis.from_url(
                self._url,
                socket_timeout=self._timeout_s,
                socket_connect_timeout=self._timeout_s,
                retry=retry,
                max_connections=_CONNECTIONS,
            )
        except (ValueError, TypeError, self._redis.RedisError):  # its message may quote the password
            raise InputError(f"{_WRONG_URL}, with options that redis-py knows") from None

    def _failed(self, error: Exception) -> None:
        with self._lock:
            self.errors += 1
            if self._down_since is None:
                self._down_since = time.monotonic()
                behind = error.__cause__ or error.__context__  # such as the error of TLS behind that of the connection
                kinds = [type(one).__name__ for one in (error, behind) if one is not None]
                # The messages of some errors quote what was sent.
                logger.warning("the store at %s is down (%s); trying again", self.place, ", ".join(kinds))
        self._look_after()

    def _look_after(self) -> None:
        """See to it that the store is tried in the background."""
        with self._lock:
            if self._closed or (self._trying is not None and self._trying.is_alive()):
                return
            self._trying = threading.Thread(
                target=_try_until_back, args=(weakref.ref(self), self._stop), name="routelearn-store", daemon=True
            )
            try:
                self._trying.start()
            except RuntimeError:  # the interpreter is shutting down
                self._trying = None

    def _try(self) -> bool:
        """Whether the store is up now, by writing to it."""
        try:
            self._client.set(self.key("try", "0"), b"", px=1000)
        except Exception as error:  # noqa: BLE001 - as in `ask`
            if self._down_since is None:
                self._failed(error)
            return False
        with self._lock:
            if self._down_since is not None and not self._closed:
                away = time.monotonic() - self._down_since
                self._down_s += away
                self._down_since = None
                logger.warning("the store at %s is back after %.1f s", self.place, away)
        return True


def _try_until_back(link: weakref.ref[RedisLink], stop: threading.Event) -> None:
    while not stop.wait(_AGAIN_S):
        alive = link()
        if alive is None or alive._try():
            return
        del alive


_WRONG_URL = "the URL of the store is not shown, because it may hold a password; expected " + ", ".join(
    f"{scheme}://..." for scheme in SCHEMES
)


def place_of(url: object) -> str:
    """Where a store is, without user and password.

    Raises:
        InputError: this is no URL of a store. The message does not show the URL.
    """
    try:
        parts = urlsplit(url if isinstance(url, str) else "")
        port = parts.port or 6379
    except ValueError:  # the port is no number; the message may quote the password
        raise InputError(_WRONG_URL) from None
    if "@" in parts.path + parts.query + parts.fragment and "@" not in parts.netloc:
        # The beginning of the password would pass for the host.
        raise InputError(f"{_WRONG_URL}, with / ? # @ of a password percent-encoded")
    if parts.scheme == "unix" and parts.path:
        return f"unix://{parts.path}"
    if parts.scheme in SCHEMES and parts.hostname:
        return f"{parts.scheme}://{parts.hostname}:{port}"
    raise InputError(_WRONG_URL)
