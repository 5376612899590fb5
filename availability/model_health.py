"""How well one model is: its newest outcomes, its circuit breaker, its counts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from ..routers.checks import check_seconds
from ..routers.errors import InputError
from .breaker import Breaker, BreakerState
from .call_outcomes import CallOutcomes

#: Why a candidate was skipped: what opened its breaker ("probe": a probe failed), or all its probes are under way.
SkipKind = Literal["failures", "error-rate", "latency", "probe", "probing"]
SKIP_KINDS: tuple[SkipKind, ...] = get_args(SkipKind)


@dataclass(frozen=True, slots=True)
class BreakerLimits:
    """When a breaker opens, and how it is probed.

    Attributes:
        failures: so many in a row open it.
        error_rate: failures / outcomes of the window from which on it opens, in (0, 1].
        min_requests: with fewer outcomes in the window (for the P95: latencies) only failures in a row open it.
        window: the window is the last so many outcomes of a model,
        window_s: none of them older than so many seconds; None: of any age.
        max_p95_s: a P95 latency above it opens; a probe slower than that is a failure. None: no limit.
        reset_timeout_s: seconds that it stays open before a probe.
        probes: requests let through at a time while it is half-open.
        probe_lease_s: seconds after which a probe without an outcome no longer holds others up. Longer than the
            longest call, else the outcome of a slow probe may be told too late to count.
    """

    failures: int = 5
    error_rate: float = 0.5
    min_requests: int = 20
    window: int = 100
    window_s: float | None = 60.0
    max_p95_s: float | None = None
    reset_timeout_s: float = 30.0
    probes: int = 1
    probe_lease_s: float = 60.0

    def __post_init__(self) -> None:
        """Refuse what cannot work.

        Raises:
            InputError: a limit is out of its range.
        """
        for name in ("failures", "min_requests", "probes"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; expected at least 1")
        if self.window < self.min_requests:
            raise InputError(f"window is {self.window}; expected at least min_requests, which is {self.min_requests}")
        if not 0 < self.error_rate <= 1:
            raise InputError(f"error_rate is {self.error_rate}; expected a share above 0, at most 1")
        for name in ("window_s", "max_p95_s", "reset_timeout_s", "probe_lease_s"):
            check_seconds(name, getattr(self, name))


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """How one model stands.

    Attributes:
        model: its name; "other": all beyond the bound on names, which have no breaker.
        state: "closed" (it is asked), "open" (it is not), "half-open" (it is probed).
        count: outcomes in the window.
        error_rate: failures / outcomes in the window; None: empty.
        p50_s: median latency of the successes in the window, seconds; None: not known.
        p95_s: 95th percentile, likewise.
        requests: outcomes recorded since the start: successes, failures and ignored ones.
        failures: failures since the start.
        ignored: cancelled calls and errors that are the request's own fault, since the start.
        opened: times its breaker opened.
        closed: times its breaker closed again.
        skipped: times that `choose` skipped it, by kind of reason.
        last_error: the newest failure that came with an error, by type and HTTP status; None: there was none.
        why: what changed the state last; "" when nothing did.
    """

    model: str
    state: BreakerState
    count: int
    error_rate: float | None
    p50_s: float | None
    p95_s: float | None
    requests: int
    failures: int
    ignored: int
    opened: int
    closed: int
    skipped: dict[SkipKind, int]
    last_error: str | None
    why: str

    def as_dict(self) -> dict[str, Any]:
        """The status as plain data, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Change:
    """A breaker changed its state, and why."""

    model: str
    old: BreakerState
    new: BreakerState
    why: str


class ModelHealth:
    """What is known of one model. Not locked: its owner locks, and gives the time."""

    def __init__(self, name: str, limits: BreakerLimits, *, guarded: bool = True) -> None:
        """A model that is well.

        Args:
            name: of the model.
            limits: of its breaker.
            guarded: it has a breaker; False: outcomes are counted, and it is always available.

        Raises:
            MissingExtraError: pybreaker is not installed.
        """
        self.name, self._limits = name, limits
        self._outcomes = CallOutcomes(limits.window, limits.window_s)
        self._breaker = (
            Breaker(name, limits.failures, limits.reset_timeout_s, limits.probes, limits.probe_lease_s)
            if guarded
            else None
        )
        self._kind: SkipKind = "failures"
        self._why = ""
        self._last_error: str | None = None
        self._requests = self._failures = self._ignored = self._opened = self._closed = 0
        self._skipped: dict[SkipKind, int] = dict.fromkeys(SKIP_KINDS, 0)

    @property
    def state(self) -> BreakerState:
        """The state of its breaker."""
        return "closed" if self._breaker is None else self._breaker.state

    def wait_s(self, now: float) -> float:
        """Seconds until it can be asked; 0: now, be it as a probe."""
        return 0.0 if self._breaker is None else self._breaker.wait_s(now)

    def claim(self, now: float, changes: list[Change]) -> int | None:
        """The lease of a probe, if one may go; a change of state is added to `changes`."""
        if self._breaker is None:
            return None
        before = self.state
        lease = self._breaker.claim(now)
        self._changed(before, self._kind, f"{self._limits.reset_timeout_s:.3g} s have passed", changes)
        return lease

    def skip(self, wait_s: float) -> str:
        """Count that it was skipped, and say why."""
        kind: SkipKind = self._kind if self.state == "open" else "probing"
        self._skipped[kind] += 1
        if kind == "probing":
            return f"{self.name} is being probed"
        error = f", last error {self._last_error}" if self._last_error else ""
        return f"{self.name} is out for another {wait_s:.3g} s ({self._why}{error})"

    def ignore(self, lease: int | None, by_name: bool) -> None:
        """Take in a call that says nothing about the model; arguments as in `record`."""
        self._requests += 1
        self._ignored += 1
        if self._breaker is not None:
            lease = self._breaker.oldest_probe if by_name else lease
            if lease is not None:
                self._breaker.release(lease)

    def record(
        self,
        ok: bool,
        latency_s: float | None,
        error: str | None,
        lease: int | None,
        by_name: bool,
        now: float,
        changes: list[Change],
    ) -> None:
        """Take in a success or a failure.

        Args:
            ok: success.
            latency_s: seconds, or None.
            error: what went wrong, or None.
            lease: of the probe that it was; None: it was none.
            by_name: what it was is not known: the oldest probe, or a probe of its own when one is due.
            now: seconds.
            changes: gets the changes of state, in their order.
        """
        self._requests += 1
        self._failures += not ok
        if error is not None:
            self._last_error = error
        self._outcomes.add(now, ok, latency_s)
        if self._breaker is None:
            return
        if self._breaker.state == "closed":
            self._judge(self._breaker, ok, now, changes)
            return
        if by_name:
            lease = self._breaker.oldest_probe or self.claim(now, changes)
        if lease is not None:  # else it began before the breaker opened, or was the last resort
            self._settle(self._breaker, lease, ok, latency_s, now, changes)

    def _judge(self, breaker: Breaker, ok: bool, now: float, changes: list[Change]) -> None:
        """Open the breaker when failures in a row or the window say so."""
        outcomes, limits = self._outcomes, self._limits
        rate, p95 = outcomes.error_rate, outcomes.percentile(0.95)
        breaker.record(ok, now)
        if breaker.state == "open":
            self._changed("closed", "failures", f"{breaker.failures_in_a_row} failures in a row", changes)
        elif rate is not None and rate >= limits.error_rate and outcomes.count >= limits.min_requests:
            breaker.open(now)
            self._changed("closed", "error-rate", f"error rate {rate:.0%} of {outcomes.count} requests", changes)
        elif self._is_slow(p95) and outcomes.latencies >= limits.min_requests:
            breaker.open(now)
            self._changed("closed", "latency", f"P95 latency {p95:.3g} s, above {limits.max_p95_s:.3g} s", changes)

    def _settle(
        self, breaker: Breaker, lease: int, ok: bool, latency_s: float | None, now: float, changes: list[Change]
    ) -> None:
        """Let a probe close the breaker or open it again."""
        before = breaker.state
        slow = ok and self._is_slow(latency_s)
        breaker.settle(lease, ok and not slow, now)
        if breaker.state == "closed":
            self._outcomes.clear()  # what led to the opening must not lead to the next one
        why = f"a probe took {latency_s:.3g} s" if slow else "a probe succeeded" if ok else "a probe failed"
        self._changed(before, "probe", why, changes)

    def _is_slow(self, latency_s: float | None) -> bool:
        return self._limits.max_p95_s is not None and latency_s is not None and latency_s > self._limits.max_p95_s

    def _changed(self, before: BreakerState, kind: SkipKind, why: str, changes: list[Change]) -> None:
        """Keep what changed, if anything did."""
        if self.state == before:
            return
        self._kind, self._why = kind, why
        self._opened += self.state == "open"
        self._closed += self.state == "closed"
        changes.append(Change(self.name, before, self.state, why))

    def status(self, now: float) -> ModelStatus:
        """How it stands."""
        self._outcomes.expire(now)
        return ModelStatus(
            model=self.name,
            state=self.state,
            count=self._outcomes.count,
            error_rate=self._outcomes.error_rate,
            p50_s=self._outcomes.percentile(0.5),
            p95_s=self._outcomes.percentile(0.95),
            requests=self._requests,
            failures=self._failures,
            ignored=self._ignored,
            opened=self._opened,
            closed=self._closed,
            skipped=dict(self._skipped),
            last_error=self._last_error,
            why=self._why,
        )
