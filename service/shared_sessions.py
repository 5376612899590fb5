"""Sessions that replicas share in a Redis or Valkey, and that each replica keeps for itself while that is down."""

from __future__ import annotations

import hashlib

from ..policies.session_state import Change, MemorySessions, SessionState
from ..routers.forks import new_lock
from .redis_link import RedisLink, Script, StoreDownError

#: What decisions say while the store is down.
DOWN = "the session store is down: this replica decides from its own memory"
#: So often is a session decided anew because another replica wrote in between; then the other one's state stands.
_TRIES = 20
#: Some 300 years; a longer time is no number of milliseconds for the store.
_LONGEST_TTL_S = 1e10

#: Writes a session if nobody wrote since it was read, and answers nil; else it answers what stands there, empty for
#: nothing. A key that holds no text is no session, and is written over.
_SWAP = Script("""
local found = redis.pcall('GET', KEYS[1])
if type(found) ~= 'string' then found = '' end
if found ~= ARGV[1] then return found end
if tonumber(ARGV[3]) > 0 then redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
else redis.call('SET', KEYS[1], ARGV[2]) end
return nil
""")

#: Copies a session to another key, and answers it; nil: it is not known.
_COPY = Script("""
local found = redis.pcall('GET', KEYS[1])
if type(found) ~= 'string' then return nil end
if tonumber(ARGV[1]) > 0 then redis.call('SET', KEYS[2], found, 'PX', ARGV[1])
else redis.call('SET', KEYS[2], found) end
return found
""")


class SharedSessions:
    """A `SessionStore` on a Redis or Valkey. Threads may share one, and forked processes.

    A session that this replica wrote last costs one round trip, and one that another replica wrote costs two: the
    replica first tries with what it remembers of the session, and the store tells what stands there if that is out of
    date. Two replicas that write a session at the same moment do so one after the other, the second one upon the state
    of the first.

    While the store is down, the replica decides from its memory, and decisions say so. A session that went on
    meanwhile is written back with its next request.

    Example:
        >>> from routelearn.policies import Conversations
        >>> from routelearn.service import SharedSessions
        >>> store = SharedSessions("redis://localhost:6379/0")  # doctest: +SKIP
        >>> sessions = Conversations(store=store, salt=b"one for all replicas")  # doctest: +SKIP
    """

    def __init__(self, link: RedisLink | str, *, max_sessions: int = 100_000, ttl_s: float | None = 3600.0) -> None:
        """Start with the sessions of the store.

        Args:
            link: the store, or its URL.
            max_sessions: the most sessions that this replica remembers for the time when the store is down. The
                store's own memory is bounded by `ttl_s`, and by the `maxmemory` of the server.
            ttl_s: forget a session after so many silent seconds; None: never.

        Raises:
            InputError: an argument is out of its range, or the URL is none of a store.
            MissingExtraError: redis is not installed.
        """
        self._link = link if isinstance(link, RedisLink) else RedisLink(link)
        self._local = MemorySessions(max_sessions, ttl_s)
        never = ttl_s is None or ttl_s > _LONGEST_TTL_S
        self._ttl_s, self._ttl_ms = ttl_s, 0 if never else max(1, round(1000 * (ttl_s or 0.0)))
        self._lock = new_lock()
        self._conflicts = self._alone = 0

    @property
    def note(self) -> str:
        """See `SessionStore.note`."""
        return DOWN if self._link.down else ""

    def update(self, key: str, now: float, change: Change) -> SessionState:
        """Change a session as one step, and return the new state. It never raises an error of the store.

        Args:
            key: the hashed id.
            now: time in seconds.
            change: called with the old state; called again where another replica wrote in between.
        """
        try:
            return self._update(key, now, change)
        except StoreDownError:
            with self._lock:
                self._alone += 1
            return self._local.update(key, now, change)

    def alias(self, key: str, other: str) -> None:
        """Find a session by another key as well. The other key counts as one more session, forgotten by itself."""
        self._local.alias(key, other)
        try:
            found = self._link.run(_COPY, (self._key(key), self._key(other)), (self._ttl_ms,))
        except StoreDownError:
            return
        if found:
            self._local.keep(other, _bytes(found))

    def as_dict(self) -> dict[str, int]:
        """Counts of this replica, as plain data.

        "sessions" is the number of sessions that this replica remembers, which are those that it wrote itself, not
        the number in the store. "store_down" is 1 while the store is down; "store_down_s" and "store_errors" count the
        seconds and the errors, "decided_alone" the requests that were decided without the store, and
        "store_conflicts" those that were not noted, because others wrote the session in between again and again.
        """
        with self._lock:
            counts = {"decided_alone": self._alone, "store_conflicts": self._conflicts}
        link = self._link
        state = {"store_down": int(link.down), "store_down_s": int(link.down_s), "store_errors": link.errors}
        return {**self._local.as_dict(), **state, **counts}

    def close(self) -> None:
        """Close the connections. Sessions go on in the memory of this process."""
        self._link.close()

    def _update(self, key: str, now: float, change: Change) -> SessionState:
        own = self._local.kept(key, now)
        there = own or b""  # what is expected in the store
        for _ in range(_TRIES):
            before = self._newest(there, own, now)
            after = change(before)
            if before is not None:
                # Clocks of replicas differ a little; a later state must not look older.
                after.seen = max(after.seen, before.seen)
            packed = after.as_json().encode()
            found = self._link.run(_SWAP, (self._key(key),), (there, packed, self._ttl_ms))
            if found is None:
                self._local.keep(key, packed)
                return after
            there = _bytes(found)
        with self._lock:
            self._conflicts += 1
        return change(self._newest(there, own, now))

    def _newest(self, there: bytes, own: bytes | None, now: float) -> SessionState | None:
        """The state to go on from: the store's, unless this replica's own is later, since the store was down."""
        states = [SessionState.from_json(one) for one in (there, own if own != there else None) if one]
        known = [state for state in states if state is not None and not self._is_over(state, now)]
        return max(known, key=lambda state: state.seen, default=None)  # the store's comes first among equals

    def _is_over(self, state: SessionState, now: float) -> bool:
        return self._ttl_s is not None and now - state.seen > self._ttl_s

    def _key(self, key: str) -> str:
        return self._link.key("s", key)


def shared_salt(secret: str | None) -> bytes:
    """The key of the hashes of session ids for replicas with one store: the same wherever the secret is.

    Args:
        secret: known to the replicas alone; None: the hashes can be recomputed by whoever knows a session's id.
    """
    return hashlib.blake2b((secret or "").encode("utf-8", "surrogatepass"), digest_size=32, person=b"sessions").digest()


def _bytes(found: object) -> bytes:
    return found if isinstance(found, bytes) else str(found).encode()  # the URL may ask for texts
