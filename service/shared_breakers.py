"""Breakers that replicas share: what one replica found to be down, the others skip, and one of them probes."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
import weakref
from collections import deque
from typing import Any

from ..availability.availability import Availability
from ..availability.breaker import BreakerState
from ..routers.checks import check_seconds
from ..routers.error_log import log_error
from ..routers.forks import renew_in_child
from .redis_link import RedisLink, Script, StoreDownError

logger = logging.getLogger(__name__)

#: Seconds that the news of a breaker that closed stands in the store.
_NEWS_S = 10.0

#: Takes the turn to probe a model, or keeps it, and answers 1; 0: another replica has it.
_TAKE = Script("""
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
""")


class SharedBreakers:
    """Tells other replicas of breakers that open and close here, and opens and closes breakers here when others do.

    A thread exchanges the states every `every_s` seconds, and at once when a breaker changes here. A breaker that
    another replica opened is held open here for as long. Then one replica at a time has the turn to probe: mostly the
    one whose breaker opened first. When its probe succeeds, the breakers of all replicas close. A replica with the
    turn that sends no probe within `grace_s` loses it to another one.

    While the store is down, each replica has its own breakers alone.

    Example:
        >>> from routelearn.availability import Availability
        >>> from routelearn.service import SharedBreakers
        >>> availability = Availability(["sim-max", "sim-small"])
        >>> shared = SharedBreakers("redis://localhost:6379/0", availability)  # doctest: +SKIP
        >>> shared.close()  # doctest: +SKIP
    """

    def __init__(
        self, link: RedisLink | str, availability: Availability, *, every_s: float = 0.5, grace_s: float = 5.0
    ) -> None:
        """Start the thread.

        Args:
            link: the store, or its URL.
            availability: the breakers of this replica.
            every_s: seconds between two exchanges.
            grace_s: seconds that a replica has for its probe before it is another one's turn.

        Raises:
            InputError: an argument is out of its range, or the URL is none of a store.
            MissingExtraError: redis is not installed.
        """
        check_seconds("every_s", every_s, or_none=False)
        check_seconds("grace_s", grace_s, or_none=False)
        self._link = link if isinstance(link, RedisLink) else RedisLink(link)
        self._availability = availability
        self._every_s, self._grace_s = every_s, grace_s
        self._closed = False
        self._begin()
        renew_in_child(self, SharedBreakers._begin)
        availability.watch(self._changed)

    def close(self) -> None:
        """Stop the thread. Breakers go on, each replica's by itself."""
        self._closed = True
        self._wake.set()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout=5)

    def _begin(self) -> None:
        """Start the thread of this process, as a replica of its own."""
        self._me = os.urandom(8).hex()
        self._news: deque[tuple[str, BreakerState, str]] = deque(maxlen=1000)
        self._known: dict[str, str] = {}  # the last news of each model that was acted upon
        self._turn: dict[str, float] = {}  # when to ask for the turn again
        self._one_at_a_time = threading.Lock()
        self._exchanger = 0  # the thread that exchanges at present
        self._wake = threading.Event()
        self._thread = threading.Thread(
            target=_exchange_again_and_again,
            args=(weakref.ref(self), self._wake, self._every_s),
            name="routelearn-breakers",
            daemon=True,
        )
        if not self._closed:
            self._thread.start()

    def _changed(self, model: str, old: BreakerState, new: BreakerState, why: str) -> None:
        """Note a change that this replica found. What `exchange` changes is no news."""
        if new != "half-open" and threading.get_ident() != self._exchanger:
            self._news.append((model, new, why))
            self._wake.set()

    def exchange(self) -> None:
        """Tell the news and take in those of others, now. The thread does this by itself.

        It raises no error of the store.
        """
        with self._one_at_a_time:
            self._exchanger = threading.get_ident()
            with contextlib.suppress(StoreDownError):
                self._exchange()
            self._exchanger = 0

    def _exchange(self) -> None:
        while self._news:
            self._tell(*self._news[0])
            self._news.popleft()
        self._hear([status.model for status in self._availability.statuses()])
        for status in self._availability.statuses():
            self._take_turns(status.model, status.state)

    def _tell(self, model: str, new: BreakerState, why: str) -> None:
        if self._availability.status(model).state != new:
            return  # it changed again meanwhile, and that stands further back among the news
        wait_s = self._availability.wait_s(model)
        for_s = wait_s + self._grace_s if new == "open" else _NEWS_S
        self._known[model] = number = os.urandom(8).hex()
        news = {"by": self._me, "id": number, "state": new, "why": why, "grace_s": self._grace_s}
        self._link.ask(lambda client: client.set(self._link.key("b", model), json.dumps(news), px=_ms(for_s)))
        if new == "open":
            self._ask_for_turn(model, wait_s)
        else:
            self._give_turn_back(model)

    def _hear(self, models: list[str]) -> None:
        def question(client: Any) -> list[Any]:
            pipeline = client.pipeline(transaction=False)
            for model in models:
                key = self._link.key("b", model)
                pipeline.get(key).pttl(key)
            found: list[Any] = pipeline.execute(raise_on_error=False)
            return found

        found = self._link.ask(question) if models else []
        for model, text, left_ms in zip(models, found[::2], found[1::2], strict=True):
            news = _read(text)
            if news is None or news["by"] == self._me or self._known.get(model) == news["id"]:
                continue
            self._known[model] = news["id"]
            if news["state"] == "open" and isinstance(left_ms, int):
                seconds = max(left_ms / 1000 - news["grace_s"], 2 * self._every_s)
                self._availability.hold(model, seconds, f"another replica: {news['why']}")
            elif news["state"] == "closed":
                self._availability.release(model, f"another replica: {news['why']}")

    def _take_turns(self, model: str, state: BreakerState) -> None:
        """See to it that a breaker which is about to let a probe through does so only when it is its turn."""
        if state == "half-open" and model in self._turn:  # the probe runs
            self._ask_for_turn(model, 0.0)
        elif state == "closed":
            self._turn.pop(model, None)
        elif state == "open":
            wait_s = self._availability.wait_s(model)
            if wait_s > 2 * self._every_s or time.monotonic() < self._turn.get(model, 0.0):
                return
            if not self._ask_for_turn(model, wait_s):
                self._availability.hold(model, 2 * self._every_s, "another replica probes it")

    def _ask_for_turn(self, model: str, wait_s: float) -> bool:
        """Whether it is this replica's turn. It lasts for `grace_s` after the wait; then another one may ask first."""
        key, for_s = self._link.key("p", model), wait_s + self._grace_s
        mine: bool = self._link.run(_TAKE, (key,), (self._me, _ms(for_s))) == 1
        if mine:
            self._turn[model] = time.monotonic() + for_s + self._grace_s
        return mine

    def _give_turn_back(self, model: str) -> None:
        self._turn.pop(model, None)
        self._link.ask(lambda client: client.delete(self._link.key("p", model)))


def _exchange_again_and_again(shared: weakref.ref[SharedBreakers], wake: threading.Event, every_s: float) -> None:
    while True:
        wake.wait(every_s)
        wake.clear()
        alive = shared()
        if alive is None or alive._closed:
            return
        try:
            alive.exchange()
        except Exception as error:  # noqa: BLE001 - the breakers of this replica go on
            log_error(logger, "the states of breakers could not be exchanged; the next try follows", error)
        del alive


def _read(text: object) -> dict[str, Any] | None:
    """News in the store; None: there are none, or those of another version."""
    try:
        news: Any = json.loads(text) if isinstance(text, (str, bytes)) else None
    except ValueError:
        return None
    if not isinstance(news, dict) or not all(isinstance(news.get(name), str) for name in ("by", "id", "state", "why")):
        return None
    return news if isinstance(news.get("grace_s"), (int, float)) else None


def _ms(seconds: float) -> int:
    return max(1, round(1000 * seconds))
