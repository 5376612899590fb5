"""What counts against a model, and what becomes of the outcome of a call: attempts, probes by name, real upstreams."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import numpy as np
import pytest
from helpers.availability import Clock, opened, run_threads
from hypothesis import given
from hypothesis import strategies as st

from routelearn.availability.availability import Availability
from routelearn.availability.breaker import BreakerLimits, describe, is_failure
from routelearn.availability.choice import Choice
from routelearn.availability.model_health import CallOutcomes


class StatusError(Exception):
    def __init__(self, status_code: int) -> None:
        super().__init__(f"HTTP {status_code}: your prompt was ...")
        self.status_code = status_code


def http_error(status: int) -> httpx.HTTPStatusError:
    request = httpx.Request("POST", "http://localhost")
    return httpx.HTTPStatusError("no", request=request, response=httpx.Response(status, request=request))


@pytest.mark.parametrize(
    "error",
    [
        *map(StatusError, (408, 429, 500, 502, 503, 529)),
        http_error(503),
        ConnectionRefusedError(),
        TimeoutError(),
        asyncio.TimeoutError(),
        concurrent.futures.TimeoutError(),
        httpx.ConnectError("no route"),
        httpx.ReadTimeout("slow"),
        RuntimeError("?"),
    ],
    ids=repr,
)
def test_outages_count(error: BaseException) -> None:
    assert is_failure(error)


@pytest.mark.parametrize(
    "error",
    [
        *map(StatusError, (400, 401, 403, 404, 409, 413, 422)),
        http_error(400),
        asyncio.CancelledError(),
        concurrent.futures.CancelledError(),
        KeyboardInterrupt(),
        GeneratorExit(),
        KeyError("x"),
        ValueError("x"),
        TypeError("x"),
    ],
    ids=repr,
)
def test_bad_requests_cancellations_and_bugs_of_the_caller_do_not_count(error: BaseException) -> None:
    assert not is_failure(error)
    availability = Availability(limits=BreakerLimits(failures=1))
    for _ in range(50):
        availability.record("a", ok=False, error=error)
    status = availability.status("a")
    assert (status.state, status.requests, status.failures, status.ignored) == ("closed", 50, 0, 50)
    assert status.error_rate is None


def test_an_error_is_told_without_its_text() -> None:
    assert describe(StatusError(503)) == "StatusError 503"
    availability = Availability(limits=BreakerLimits(failures=1))
    availability.record("a", ok=False, error=StatusError(503))
    assert availability.status("a").last_error == "StatusError 503"
    assert "prompt" not in availability.choose(["a", "b"]).reason


def test_the_caller_says_what_counts_and_a_caller_that_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    availability = Availability(counts_as_failure=lambda error: isinstance(error, KeyError))
    availability.record("a", ok=False, error=KeyError())
    availability.record("a", ok=False, error=TimeoutError())
    assert (availability.status("a").failures, availability.status("a").ignored) == (1, 1)

    def broken(error: BaseException) -> bool:
        raise RuntimeError("in the caller's function")

    availability = Availability(counts_as_failure=broken)
    with pytest.raises(ZeroDivisionError), availability.attempt("a"):
        raise ZeroDivisionError
    assert availability.status("a").failures == 1
    assert "counts_as_failure raised" in caplog.text


def test_an_attempt_records_what_happens_inside_and_how_long_it_took() -> None:
    clock = Clock()
    availability = Availability(limits=BreakerLimits(failures=2, reset_timeout_s=30), clock=clock)
    with availability.attempt("a"):
        clock.now += 3
    assert availability.status("a").p95_s == 3
    for error in (StatusError(400), TimeoutError(), TimeoutError()):
        with pytest.raises(type(error)), availability.attempt("a"):
            raise error
    status = availability.status("a")
    assert (status.state, status.requests, status.failures, status.ignored) == ("open", 4, 2, 1)
    assert status.last_error == "TimeoutError"


def test_an_attempt_is_a_context_for_coroutines_and_a_cancelled_one_gives_its_probe_back() -> None:
    clock = Clock()
    availability = opened(clock)

    async def call(choice: Choice, hang: bool) -> None:
        async with availability.attempt(choice):
            await asyncio.sleep(60 if hang else 0)

    async def main() -> None:
        clock.now += 30
        task = asyncio.create_task(call(availability.choose(["a", "b"]), hang=True))
        await asyncio.sleep(0)
        assert availability.choose(["a", "b"]).model == "b"
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert availability.status("a").state == "half-open"
        await call(availability.choose(["a", "b"]), hang=False)

    asyncio.run(main())
    status = availability.status("a")
    assert (status.state, status.ignored, status.closed) == ("closed", 1, 1)


@pytest.mark.parametrize("ok", [True, False])
def test_by_name_an_outcome_settles_the_probe_that_is_under_way(ok: bool) -> None:
    clock = Clock()
    availability = opened(clock)
    clock.now += 30
    assert availability.choose(["a", "b"]).probe
    availability.record("a", ok=ok)
    assert availability.status("a").state == ("closed" if ok else "open")


@pytest.mark.parametrize("ok", [True, False])
def test_by_name_an_outcome_is_a_probe_when_one_is_due_and_changes_nothing_before(ok: bool) -> None:
    clock = Clock()
    availability = opened(clock)
    clock.now += 29
    availability.record("a", ok=True)
    assert availability.status("a").state == "open"
    clock.now += 1
    availability.record("a", ok=ok)
    assert availability.status("a").state == ("closed" if ok else "open")
    assert availability.status("a").opened == (1 if ok else 2)


def test_attempts_by_name_take_the_probe_so_that_others_see_it_taken() -> None:
    clock = Clock()
    availability = opened(clock)
    clock.now += 30
    with availability.attempt("a"):
        assert availability.fallbacks(["a", "b"]) == ("b", "a")
        assert availability.choose(["a", "b"]).model == "b"
    assert availability.status("a").state == "closed"


def test_a_cancelled_attempt_by_name_gives_the_probe_of_its_choice_back() -> None:
    clock = Clock()
    availability = opened(clock)
    clock.now += 30
    name = availability.choose(["a", "b"]).model
    with pytest.raises(KeyboardInterrupt), availability.attempt(name):
        raise KeyboardInterrupt
    assert availability.choose(["a", "b"]).probe


# The window.


@given(st.lists(st.tuples(st.floats(0, 20), st.booleans(), st.none() | st.floats(0, 50)), max_size=60))
def test_the_window_holds_the_newest_outcomes_of_the_last_seconds(
    calls: list[tuple[float, bool, float | None]],
) -> None:
    outcomes, now, seen = CallOutcomes(12, 60.0), 0.0, []
    for wait, ok, latency_s in calls:
        now += wait
        outcomes.add(now, ok, latency_s)
        seen.append((now, ok, latency_s))
        newest = [call for call in seen[-12:] if now - call[0] <= 60]
        assert outcomes.count == len(newest)
        assert outcomes.error_rate == pytest.approx(np.mean([not ok for _, ok, _ in newest]))
        latencies = [latency for _, ok, latency in newest if ok and latency is not None]
        for share in (0.5, 0.95):
            rank = float(np.percentile(latencies, 100 * share, method="inverted_cdf")) if latencies else None
            assert outcomes.percentile(share) == rank
    outcomes.expire(now + 61)
    assert (outcomes.count, outcomes.error_rate, outcomes.percentile(0.5)) == (0, None, None)


def test_a_window_without_seconds_keeps_outcomes_of_any_age() -> None:
    outcomes = CallOutcomes(2, None)
    outcomes.add(0.0, False, None)
    outcomes.add(1e9, True, 1.0)
    assert outcomes.count == 2


# Real upstreams.


class Upstream:
    """An HTTP server on loopback that can be killed and started again on its port; counts what it answered."""

    def __init__(self) -> None:
        self.answered, self.port, self._lock = 0, 0, threading.Lock()
        self.start()

    def start(self) -> None:
        upstream = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with upstream._lock:
                    upstream.answered += 1
                self.send_response(200)
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def two_upstreams() -> Iterator[dict[str, Upstream]]:
    upstreams = {"strong": Upstream(), "weak": Upstream()}
    try:
        yield upstreams
    finally:
        for upstream in upstreams.values():
            upstream.stop()


def test_a_model_that_is_killed_and_comes_back_costs_no_request_and_is_asked_again() -> None:
    with two_upstreams() as upstreams, httpx.Client(trust_env=False) as client:
        availability = Availability(limits=BreakerLimits(failures=3, reset_timeout_s=0.1))

        def ask() -> str:
            for model in (availability.choose(["strong", "weak"]), "weak"):
                name = model.model if isinstance(model, Choice) else model
                try:
                    with availability.attempt(model):
                        client.get(f"http://127.0.0.1:{upstreams[name].port}")
                        return name
                except httpx.TransportError:
                    continue
            raise AssertionError("a request failed")

        def load(requests: int) -> list[str]:
            answered: list[str] = []
            run_threads(4, lambda _: answered.extend([ask() for _ in range(requests)]))
            return answered

        for _ in range(2):
            assert load(10) == ["strong"] * 40
            upstreams["strong"].stop()
            assert load(20) == ["weak"] * 80
            assert availability.status("strong").state != "closed"
            upstreams["strong"].start()
            deadline = time.monotonic() + 30
            while availability.status("strong").state != "closed" and time.monotonic() < deadline:
                ask()
        status = availability.status("strong")
        assert status.state == "closed" and status.closed == 2
        assert status.requests - status.failures == upstreams["strong"].answered
        assert availability.status("weak").requests == upstreams["weak"].answered
