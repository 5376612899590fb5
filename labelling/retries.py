"""Which failed calls are worth another try, and after how long."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from ..availability.breaker import status_of
from ..cascade.charges import refused_unread
from ..routers.checks import as_number

#: "setup": every call will fail, for instance because the key is wrong; "question": this question will fail, for
#: instance because it is too long; "service": the service failed, and may answer another time.
Kind = Literal["setup", "question", "service"]

_SETUP_STATUSES = frozenset({401, 402, 403, 404, 405})
_QUESTION_STATUSES = frozenset({400, 413, 414, 415, 422})
#: Codes of a 429 that no waiting helps against.
_SETUP_CODES = frozenset({"insufficient_quota", "billing_hard_limit_reached", "account_deactivated"})
#: The first wait in seconds, which doubles with each try, and the longest one.
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 60.0
#: A job does not wait for longer than this, in seconds, where a service asks for a pause.
LONGEST_PAUSE_S = 900.0


@dataclass(frozen=True)
class Fault:
    """Why a call failed.

    Attributes:
        kind: what to do about it.
        what: in words.
        pause_s: how long the service asks to wait, in seconds; 0: it does not say.
        uncharged: no model read the question, so that the service charges nothing.
        unreached: the service did not answer at all.
    """

    kind: Kind
    what: str
    pause_s: float = 0.0
    uncharged: bool = False
    unreached: bool = False

    def __str__(self) -> str:
        return self.what


def fault_in(error: BaseException) -> Fault:
    """Read the fault from what a client raised."""
    status = status_of(error)
    text = " ".join(str(error).split())[:300] or type(error).__name__
    if isinstance(error, TimeoutError) or type(error).__name__ == "TimeoutError":  # asyncio has its own in Python 3.10
        return Fault("service", "the call took longer than timeout_s allows")
    if status in _SETUP_STATUSES or _code(error) in _SETUP_CODES:
        return Fault("setup", text, uncharged=True)
    if status in _QUESTION_STATUSES:
        return Fault("question", text, uncharged=True)
    pause_s = _asked_pause(error)
    if pause_s > LONGEST_PAUSE_S:
        text = f"the service asks to wait {pause_s / 60:.0f} minutes; run the same command then ({text})"
        return Fault("setup", text, uncharged=True)
    uncharged = refused_unread(error)
    return Fault("service", text, pause_s, uncharged, uncharged and status is None)


def wait_before(number: int, fault: Fault | None, chance: random.Random) -> float:
    """Seconds to wait before try `number`, from 1: the pause that the service asked for, or a random doubling one."""
    if fault is not None and fault.pause_s:
        return fault.pause_s * (1 + chance.random() / 10)
    doubled: float = FIRST_WAIT_S * 2 ** (number - 1)
    return min(doubled, LONGEST_WAIT_S) * (0.5 + chance.random() / 2)


def _code(error: BaseException) -> str | None:
    code = getattr(error, "code", None)
    return code if isinstance(code, str) else None


def _asked_pause(error: BaseException) -> float:
    """The header Retry-After in seconds: a number of seconds, or a date; 0: there is none."""
    headers: Any = getattr(getattr(error, "response", None), "headers", None)
    if not isinstance(headers, Mapping):
        return 0.0
    milliseconds = as_number(headers.get("retry-after-ms"))
    if milliseconds > 0:
        return milliseconds / 1000
    asked = headers.get("retry-after")
    seconds = as_number(asked)
    if math.isnan(seconds) and isinstance(asked, str):
        try:
            seconds = parsedate_to_datetime(asked).timestamp() - time.time()
        except ValueError:
            return 0.0
    return 0.0 if math.isnan(seconds) else max(seconds, 0.0)
