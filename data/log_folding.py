"""Many lines, one request: lines of one id, chunks of a stream, batches and their inputs, retries."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from ..routers.errors import DataError
from ..routers.query import transcript
from .log_formats import BatchInput, LoggedCall

_MERGED = ("query", "query_hash", "response", "time", "cost_usd", "tokens", "outcome", "task")


def with_inputs(calls: Sequence[LoggedCall], inputs: Iterable[BatchInput]) -> list[LoggedCall]:
    """The calls of batches with the model and the query of their inputs; other calls as they are.

    Raises:
        DataError: several requests have the name of a call.
    """
    known: dict[str, dict[tuple[str, str], BatchInput]] = {}
    for one in inputs:
        content = "" if one.query is None else transcript(one.query)
        known.setdefault(one.custom_id, {})[one.model, content] = one
    return [
        call if call.custom_id not in known else _with_input(call, list(known[call.custom_id].values()))
        for call in calls
    ]


def _with_input(call: LoggedCall, inputs: Sequence[BatchInput]) -> LoggedCall:
    if len(inputs) > 1:
        alike = [one for one in inputs if call.model.startswith(one.model)]
        longest = max((len(one.model) for one in alike), default=0)  # gpt-4o-mini-2024 is no gpt-4o
        inputs = [one for one in alike if len(one.model) == longest]
    if not inputs:  # a failed call of one of several models does not say which
        return call
    if len(inputs) > 1:
        places = " and ".join(f"{one.file}, row {one.row}" for one in inputs[:2])
        expected = "one; give each batch, with its input, a command of its own"
        problem = f"{call.custom_id!r} names several requests ({places})"
        raise DataError(call.file, call.row, "custom_id", problem, expected)
    (one,) = inputs
    # A request that was put into a second batch has the name that it had in the first.
    return replace(call, model=one.model, query=one.query, ids=(f"{one.custom_id}\0{one.model}", *call.ids))


def folded_by_id(calls: Sequence[LoggedCall]) -> list[list[LoggedCall]]:
    """The calls in groups of one request: those that share an id.

    A name in a batch (`custom_id`) is no id. Numbers may be counted anew in each file: those name one request only
    together with its query.
    """
    leader: dict[str, int] = {}
    groups: dict[int, list[LoggedCall]] = {}
    for number, call in enumerate(calls):
        ids = _identities(call)
        met = sorted({leader[name] for name in ids if name in leader})
        first = met[0] if met else number
        group = groups.setdefault(first, [])
        for other in met[1:]:
            group += groups.pop(other)
        group.append(call)
        for one in group if len(met) > 1 else [call]:
            leader.update(dict.fromkeys(_identities(one), first))
    return list(groups.values())


def _identities(call: LoggedCall) -> list[str]:
    asked = asked_text(call) or ""
    return [f"{name}\0{asked}" if name.isdecimal() else name for name in call.ids if name != call.custom_id]


def merged(group: Sequence[LoggedCall]) -> LoggedCall | None:
    """What the lines of one request say together: the last answer, and what its line lacks from the others.

    None: every call of the request failed.
    """
    calls = list(group)
    if all(call.time is not None for call in calls) and not any(call.is_chunk for call in calls):
        calls.sort(key=lambda call: call.time or 0.0)
    decisions = [call for call in calls if call.is_decision]
    answers = [call for call in calls if not call.is_decision]
    good = [call for call in answers if not call.failed]
    if answers and not good:
        return None
    last = (good or decisions)[-1]
    if len(calls) == 1:
        return last
    newest_first = [last, *reversed([*decisions, *good])]
    found: dict[str, Any] = {name: _first_known(newest_first, name) for name in _MERGED}
    if last.is_chunk:
        found["response"] = "".join(call.response or "" for call in good if call.is_chunk) or None
    decided = next((call for call in newest_first if call.propensity is not None), last)
    ids = tuple(dict.fromkeys(name for call in newest_first for name in call.ids))
    return replace(last, **found, ids=ids, propensity=decided.propensity, decided=decided.decided, is_chunk=False)


def _first_known(calls: Iterable[LoggedCall], name: str) -> object:
    return next((value for call in calls if (value := getattr(call, name)) is not None), None)


def without_retries(
    calls: Sequence[LoggedCall], window_s: float, is_explored: Callable[[LoggedCall], bool]
) -> tuple[list[LoggedCall], int]:
    """Leave out retries: of the calls with one query and one model within a time, the last with an outcome is kept.

    Args:
        calls: requests; those without a time are kept.
        window_s: the longest time between two calls of a row of retries, in seconds.
        is_explored: whether a call was drawn. Each of these is kept, because each was drawn by itself: folding them
            would change the probabilities that their weights stand for.

    Returns:
        The calls that are kept, in their order, and the number of those that were left out.
    """
    rows: dict[tuple[str, str], list[int]] = {}
    for number, call in enumerate(calls):
        asked = asked_text(call)
        if call.time is not None and asked is not None and not is_explored(call):
            rows.setdefault((call.model, asked), []).append(number)
    dropped: set[int] = set()
    for numbers in rows.values():
        ordered = sorted(numbers, key=lambda number: calls[number].time or 0.0)
        run: list[int] = []
        for number in ordered:
            if run and (calls[number].time or 0.0) - (calls[run[-1]].time or 0.0) > window_s:
                dropped |= _retries(calls, run)
                run = []
            run.append(number)
        dropped |= _retries(calls, run)
    return [call for number, call in enumerate(calls) if number not in dropped], len(dropped)


def _retries(calls: Sequence[LoggedCall], run: Sequence[int]) -> set[int]:
    """All calls of a run but the one to keep."""
    with_outcome = [number for number in run if calls[number].outcome is not None]
    return set(run) - {(with_outcome or run)[-1]}


def asked_text(call: LoggedCall) -> str | None:
    """The same for calls with the same query, and for no others; None: the log does not say what was asked."""
    if call.query is None:
        return call.query_hash
    return hashlib.sha256(transcript(call.query).encode("utf-8", "surrogatepass")).hexdigest()
