"""A probe inside the proxy's process: how long the event loop is held up, and how much of that routelearn causes.

benchmarks/gateway.py copies this file beside config.yaml as gateway.py. On SIGUSR1 it writes probe.json. For the event
loop the file says how late a timer of one millisecond is. For the callback it gives the seconds of each step on the
loop (from one await to the next), by the clock and by the thread's CPU time, without the time of Python's garbage
collector within the step (LiteLLM's heap is large, and whoever allocates next pays for it). It also gives the seconds
from call to return of the hook that chooses the model.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Generator
from functools import wraps
from pathlib import Path
from typing import Any

from litellm.integrations.custom_logger import CustomLogger

late: list[float] = []
steps: list[float] = []
cpu_steps: list[float] = []
choices: list[float] = []
collected = [0.0, 0.0]  # CPU seconds of the collector in the loop's thread so far, and when it last began


def collecting(phase: str, _: dict[str, int]) -> None:
    if threading.current_thread() is not threading.main_thread():
        return
    if phase == "start":
        collected[1] = time.thread_time()
    else:
        collected[0] += time.thread_time() - collected[1]


gc.callbacks.append(collecting)


class _Stepwise:
    """Awaits a coroutine and times each of its steps."""

    def __init__(self, work: Awaitable[Any]) -> None:
        self._work = work

    def __await__(self) -> Generator[Any, Any, Any]:
        inner = self._work.__await__()
        while True:
            clock, cpu, garbage = time.perf_counter(), time.thread_time(), collected[0]
            try:
                waited_for = inner.send(None)
            except StopIteration as end:
                return end.value
            finally:
                steps.append(time.perf_counter() - clock)
                cpu_steps.append(time.thread_time() - cpu - (collected[0] - garbage))
            yield waited_for


def timed(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @wraps(method)
    async def call(*arguments: Any, **options: Any) -> Any:
        started = time.perf_counter()
        result = await _Stepwise(method(*arguments, **options))
        if method.__name__ == "async_pre_call_hook":
            choices.append(time.perf_counter() - started)
        return result

    return call


async def watch() -> None:
    while True:
        due = time.perf_counter() + 0.001
        await asyncio.sleep(0.001)
        late.append(time.perf_counter() - due)


def write(*_: object) -> None:
    found = {"late": late, "steps": steps, "cpu_steps": cpu_steps, "choices": choices}
    Path("probe.tmp").write_text(json.dumps(found))
    Path("probe.tmp").rename("probe.json")
    for values in found.values():
        values.clear()


if os.environ.get("PROBE_HOOK") == "none":
    hook: Any = CustomLogger()
else:
    from routelearn.service.litellm import hook

    for name, method in list(vars(type(hook)).items()):
        if name.startswith("async_"):
            setattr(type(hook), name, timed(method))

signal.signal(signal.SIGUSR1, write)
watching = asyncio.get_running_loop().create_task(watch())
print("the probe watches", file=sys.stderr)
