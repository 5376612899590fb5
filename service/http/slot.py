"""Holds the router in service, and exchanges it for a newer bundle while requests run."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from ...cascade.threads import in_thread
from ...routers.base import Policy, Router, ThresholdPolicy
from ...routers.bundle import GENERAL, Manifest
from ...routers.decision import Source
from ...routers.errors import BundleError, RoutelearnError
from ...routers.fallback import FallbackRouter
from ...routers.general import GeneralRouter
from ...routers.golden import GOLDEN_QUERIES
from ...routers.learned import manifest_of
from .schemas import RouterReply

logger = logging.getLogger(__name__)

#: How the files of a bundle look from outside: (name, inode, bytes, nanoseconds of the last change) for each file.
Signature = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True)
class ActiveRouter:
    """The router in service. It never changes: a reload puts another one in its place.

    Attributes:
        router: decides the queries.
        digest: sha256 of the bundle's manifest, which holds the hashes of its files; None: there is no bundle.
        loaded_at: when the router was loaded, UTC.

    Example:
        >>> import routelearn
        >>> from routelearn.service import ActiveRouter
        >>> ActiveRouter(routelearn.RulesRouter("large", "small"), digest=None).answers
        'rules'
    """

    router: Router
    digest: str | None
    loaded_at: datetime = field(default_factory=lambda: datetime.now(timezone.utc))

    @property
    def manifest(self) -> Manifest | None:
        """The manifest of the bundle; None: there is no bundle."""
        return manifest_of(self.router)

    @property
    def answers(self) -> Source:
        """What decides queries: the learned router, the general router, or rules."""
        if self.manifest is not None:
            return "general" if self.manifest.kind == GENERAL else "learned"
        return "rules" if _stands_in(self.router) is None else "general"


class ReloadRunningError(RoutelearnError):
    """Another reload runs.

    Example:
        >>> from routelearn.service.http.slot import ReloadRunningError
        >>> ReloadRunningError("another reload is running").args
        ('another reload is running',)
    """


class RouterSlot:
    """Holds the router in service, and exchanges it. A batch reads `current` once, and ends with what it read.

    Attributes:
        current: the router in service.
        path: where the router is loaded from.
        policy: decides requests that do not say how; None: the router's threshold.
        reloads: number of bundles taken over since the start.
        refused: number of bundles refused since the start.
        error: why the newest bundle was refused; None: it was not refused.
        on_reload: called with each router that takes over; None: nothing is called.

    Example:
        >>> import routelearn
        >>> from routelearn.service import RouterSlot, create_app
        >>> slot = RouterSlot("router/", lambda: routelearn.load("router/"))
        >>> slot.current.answers
        'learned'
        >>> app = create_app(slot)  # for any ASGI server
    """

    on_reload: Callable[[Router], None] | None = None

    def __init__(self, path: str, open_router: Callable[[], Router], policy: Policy | None = None) -> None:
        """Open the router for the first time.

        Args:
            path: a bundle folder, or the name of another source that `open_router` reads.
            open_router: opens the router that the path holds at the time of the call.
            policy: decides requests that do not say how; None: the router's threshold.

        Raises:
            RoutelearnError: `open_router` raised it, or the policy does not fit the router.
        """
        self.path = path
        self.policy = policy
        self._open = open_router
        self._lock = threading.Lock()
        self._signature = signature(path)
        self.reloads = 0
        self.refused = 0
        self.error: str | None = None
        self.current = self._open_active()

    def reload(self, *, wait: bool = True) -> ActiveRouter:
        """Load the bundle that the path holds now, verify it and put it in service; on an error the old router stays.

        The call blocks until the bundle is loaded, so do not make it on an event loop.

        Args:
            wait: wait while another reload runs; False: raise.

        Raises:
            ReloadRunningError: another reload runs.
            RoutelearnError: the bundle is refused.
        """
        if not self._lock.acquire(blocking=wait):
            raise ReloadRunningError(f"another reload of {self.path} is running; try again when it has ended")
        try:
            return self._reload()
        except Exception as error:
            self.refused += 1
            self.error = str(error) if isinstance(error, (RoutelearnError, OSError)) else repr(error)
            logger.error("the bundle is refused, the old router stays in service: %s", self.error)
            if isinstance(error, (RoutelearnError, OSError)):
                raise
            raise BundleError(f"the bundle does not load: {self.error}") from error
        finally:
            self._lock.release()

    def _reload(self) -> ActiveRouter:
        self._signature = signature(self.path)
        active = self._open_active()
        if active.manifest is None and self.current.manifest is not None:
            raise BundleError(_unavailable(active.router) or "the bundle does not load")
        if self.on_reload is not None:
            self.on_reload(active.router)
        self.current = active
        self.reloads += 1
        self.error = None
        logger.info("serving bundle %s", active.digest)
        return active

    def changed(self) -> Signature | None:
        """The signature of the files, if it is not the one of the last load; else None."""
        now = signature(self.path)
        return None if now == self._signature else now

    def _open_active(self) -> ActiveRouter:
        router = self._open()
        router.route_batch(GOLDEN_QUERIES, self.policy)  # raises if the policy does not fit the router
        _stands_in(router)  # loads it now, so that no request waits for it
        manifest = manifest_of(router)
        return ActiveRouter(router, None if manifest is None else manifest.digest())

    def describe(self) -> RouterReply:
        """The router in service and the result of the last reload."""
        active = self.current
        router, manifest = active.router, active.manifest
        threshold = router.threshold
        if manifest is None:
            rules = router.rules if isinstance(router, FallbackRouter) else router
            threshold = (_stands_in(router) or rules).threshold
        elif isinstance(self.policy, ThresholdPolicy):
            threshold = self.policy.threshold_of(router)
        return {
            "kind": active.answers if manifest is None else manifest.kind,
            "path": self.path,
            "answers": active.answers,
            "unavailable": _unavailable(router),
            "bundle": active.digest,
            "loaded_at": active.loaded_at.isoformat(timespec="seconds"),
            "models": list(router.models),
            "strong": router.strong,
            "weak": router.weak,
            "threshold": threshold,
            "threshold_table": [list(pair) for pair in router.threshold_table],
            "guarantee": None if manifest is None or manifest.guarantee is None else dict(manifest.guarantee),
            "reference": manifest is not None and manifest.reference is not None,
            "reloads": self.reloads,
            "refused": self.refused,
            "reload_error": self.error,
        }


def signature(path: str) -> Signature:
    """The signature of the files in a folder; empty when there are none."""
    try:
        stats = [(item.name, item.stat()) for item in sorted(Path(path).iterdir())]
    except OSError:  # the folder may be missing for a moment while it is replaced
        return ()
    return tuple((name, stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in stats)


async def watch(slot: RouterSlot, every_s: float) -> None:
    """Reload when the bundle's files have changed and have then not changed for one interval; never returns.

    Args:
        slot: holds the router.
        every_s: seconds between two looks at the files.
    """
    before: Signature | None = None
    while True:
        await asyncio.sleep(every_s)
        try:
            changed = await in_thread(slot.changed)
            if changed and changed == before:
                await in_thread(slot.reload)
            before = changed
        except (RoutelearnError, OSError):
            logger.debug("the next try comes when the files change again")
        except Exception:
            logger.exception("the service goes on to watch the bundle")


def _unavailable(router: Router) -> str | None:
    """Why the bundle does not decide; None: it does, or there is no bundle."""
    return router.unavailable if isinstance(router, FallbackRouter) else None


def _stands_in(router: Router) -> GeneralRouter | None:
    """The general router that answers in the router's place, loaded; None: rules alone do."""
    return router.general if isinstance(router, FallbackRouter) else None
