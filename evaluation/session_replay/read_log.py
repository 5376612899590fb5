"""Conversations from a decision log: who was asked what when, with which score, and the tokens of the calls."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from ...monitoring.log_rows import read_log
from ...routers.checks import as_number
from ...routers.decision import TRAINED, Decision
from ...routers.errors import InputError
from .turns import SessionRequest


class LoggedSessions(NamedTuple):
    """The conversations of a log.

    Attributes:
        sessions: their requests, by session.
        decided: the router's decision for each request, by session.
        left_out: rows without a score, or without the usage of their calls.
    """

    sessions: dict[str, list[SessionRequest]]
    decided: dict[str, list[Decision]]
    left_out: int


def read_logged_sessions(path: str | Path, strong: str, weak: str) -> LoggedSessions:
    """Read conversations from a decision log that holds what calls used.

    A log does not say how good the answer of the model was that was not asked. The qualities are what the router
    expects: the score s is the win rate of strong over weak, so strong's answer counts s and weak's 1 - s, which differ
    by the expected difference of the two. Steps of agents count as any other request.

    Args:
        path: of the log.
        strong: the strong model.
        weak: the weak model.

    Raises:
        InputError: there is no such log, or none of its rows has a score and usage.
    """
    rows: dict[str, list[tuple[float, SessionRequest, Decision]]] = {}
    left_out = 0
    for row in read_log(path):
        call = _first_call(row.get("usage"))
        score, threshold = as_number(row.get("score")), as_number(row.get("threshold"))
        if call is None or not 0 <= score <= 1 or math.isnan(threshold) or row.get("source") not in TRAINED:
            left_out += 1
            continue
        request = SessionRequest(
            query="",
            tokens=int(as_number(call["input_tokens"])),
            output_tokens=as_number(call["output_tokens"]),
            quality={strong: score, weak: 1 - score},
        )
        decision = Decision(
            model=strong if score >= threshold else weak,
            score=score,
            threshold=threshold,
            candidates=(strong, weak) if score >= threshold else (weak, strong),
            source=row["source"],
            reason="from the log",
        )
        session = call.get("session")
        name = session if isinstance(session, str) else str(row["id"])
        rows.setdefault(name, []).append((as_number(row.get("time")), request, decision))
    if not rows:
        raise InputError(
            f"{path}: none of its {left_out} decisions has a score of a router and the usage of its calls; expected a "
            "log of the LiteLLM plug-ins, or of a service that gets usage at /v1/outcomes"
        )
    sessions: dict[str, list[SessionRequest]] = {}
    decided: dict[str, list[Decision]] = {}
    for name, found in rows.items():
        found.sort(key=lambda one: one[0])
        times = [time for time, _, _ in found]
        pauses = [0.0, *(max(0.0, later - earlier) for earlier, later in pairwise(times))]
        sessions[name] = [
            replace(request, pause_s=0.0 if math.isnan(pause) else pause)
            for (_, request, _), pause in zip(found, pauses, strict=True)
        ]
        decided[name] = [decision for _, _, decision in found]
    return LoggedSessions(sessions, decided, left_out)


def _first_call(usage: object) -> Mapping[str, Any] | None:
    """The first call of a request that is not one more for the same request; None: there is none with its tokens."""
    for call in usage if isinstance(usage, list) else []:
        if not isinstance(call, Mapping) or call.get("further") is True:
            continue
        tokens = [as_number(call.get(name)) for name in ("input_tokens", "output_tokens")]
        if all(0 <= number < 1e12 for number in tokens):
            return call
    return None
