"""The router in service, and its exchange for a newer bundle while requests run."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ...routers.base import Policy, Router, Source, ThresholdPolicy
from ...routers.bundle import Manifest
from ...routers.errors import BundleError, RoutelearnError
from ...routers.fallback import FallbackRouter
from ...routers.golden import GOLDEN_QUERIES
from ...routers.learned import manifest_of

logger = logging.getLogger(__name__)

#: When a file changed: inode, bytes, nanoseconds; by name.
Signature = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True)
class Served:
    """A router in service. It never changes: a reload puts another one in its place.

    Attributes:
        router: answers.
        digest: sha256 of the bundle's manifest, which holds the hashes of its files; None: rules alone.
        loaded_at: when it was loaded.
    """

    router: Router
    digest: str | None
    loaded_at: datetime = field(default_factory=lambda: datetime.now(timezone.utc))

    @property
    def manifest(self) -> Manifest | None:
        """What the bundle says of itself; None: rules alone."""
        return manifest_of(self.router)

    @property
    def answers(self) -> Source:
        """Who answers: the learned router, or rules."""
        return "rules" if self.manifest is None else "learned"


class RouterSlot:
    """Holds the router in service. A batch reads `current` once and finishes on what it read.

    Attributes:
        current: the router in service.
        path: where it is loaded from.
        policy: decides where a request does not say how; None: the router's own threshold.
        reloads: bundles taken over since the start.
        refused: bundles refused since the start.
        error: why the newest bundle was refused; None: it was not.
        on_reload: told of each router that takes over.
    """

    on_reload: Callable[[Router], None] | None = None

    def __init__(self, path: str, open_router: Callable[[], Router], policy: Policy | None = None) -> None:
        """Open the router for the first time.

        Args:
            path: a bundle folder, or what else `open_router` reads.
            open_router: opens the router that the path holds by now.
            policy: decides where a request does not say how.

        Raises:
            RoutelearnError: what `open_router` raises, or the policy does not fit the router.
        """
        self.path = path
        self.policy = policy
        self._open = open_router
        self._lock = threading.Lock()
        self._signature = signature(path)
        self.reloads = 0
        self.refused = 0
        self.error: str | None = None
        self.current = self._served()

    def reload(self) -> Served:
        """Load what the path holds by now, verify it and let it answer; on an error the old router goes on.

        Blocks while it loads: call it off the event loop.

        Raises:
            RoutelearnError: the bundle is refused.
        """
        with self._lock:
            self._signature = signature(self.path)
            try:
                served = self._served()
                if served.answers == "rules" and self.current.answers == "learned":
                    raise BundleError(_unavailable(served.router) or "it does not load")
            except Exception as error:
                self.refused += 1
                self.error = str(error) if isinstance(error, (RoutelearnError, OSError)) else repr(error)
                logger.error("the bundle is refused, the old one goes on answering: %s", self.error)
                if isinstance(error, (RoutelearnError, OSError)):
                    raise
                raise BundleError(f"the bundle fails: {self.error}") from error
            if self.on_reload is not None:
                self.on_reload(served.router)
            self.current = served
            self.reloads += 1
            self.error = None
            logger.info("serving bundle %s", served.digest)
            return served

    def changed(self) -> Signature | None:
        """What the path's files look like, if that is not how they looked when they were last loaded."""
        found = signature(self.path)
        return None if found == self._signature else found

    def _served(self) -> Served:
        router = self._open()
        router.route_batch(GOLDEN_QUERIES, self.policy)  # a policy that does not fit this router is found here
        served = Served(router, None)
        if served.manifest is None:
            return served
        return Served(router, served.manifest.digest())

    def describe(self) -> dict[str, Any]:
        """The router in service and how the last reload went, as `schemas.RouterReply` says."""
        served = self.current
        router, manifest = served.router, served.manifest
        threshold = router.threshold
        if manifest is None:
            threshold = router.rules.threshold if isinstance(router, FallbackRouter) else router.threshold
        elif isinstance(self.policy, ThresholdPolicy):
            threshold = self.policy.threshold_of(router)
        return {
            "kind": "rules" if manifest is None else manifest.kind,
            "path": self.path,
            "answers": served.answers,
            "unavailable": _unavailable(router),
            "bundle": served.digest,
            "loaded_at": served.loaded_at.isoformat(timespec="seconds"),
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
    """What a bundle's files look like from outside; empty when there are none."""
    try:
        stats = [(item.name, item.stat()) for item in sorted(Path(path).iterdir())]
    except OSError:  # between two renames of an export
        return ()
    return tuple((name, stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in stats)


async def watch(slot: RouterSlot, every_s: float) -> None:
    """Reload when the bundle's files have changed and have then kept still for one interval; never returns."""
    before: Signature | None = None
    while True:
        await asyncio.sleep(every_s)
        found = await asyncio.to_thread(slot.changed)
        if found and found == before:
            try:
                await asyncio.to_thread(slot.reload)
            except (RoutelearnError, OSError):
                logger.debug("tried again when the files change")
        before = found


def _unavailable(router: Router) -> str | None:
    """Why rules answer in the place of the bundle, where one was wanted."""
    return router.unavailable if isinstance(router, FallbackRouter) else None
