"""The calls of a decision log, for the savings of the past."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..routers.errors import InputError
from .served_call import ServedCall


def logged_calls(rows: Iterable[Mapping[str, Any]]) -> list[ServedCall]:
    """The calls that the rows of a log hold, oldest first.

    Args:
        rows: from `read_log`; a row without "usage" has no call.

    Raises:
        InputError: a call is broken; the message names the row.

    Example:
        >>> from routelearn.monitoring import logged_calls
        >>> usage = {"model": "sim-small", "strong": "sim-max", "input_tokens": 900, "output_tokens": 200, "time": 0.0}
        >>> logged_calls([{"id": "1", "usage": [usage]}])[0].model
        'sim-small'
    """
    calls: list[ServedCall] = []
    for row in rows:
        for usage in row.get("usage", ()):
            try:
                calls.append(ServedCall.from_dict(usage))
            except InputError as error:
                raise InputError(f"the usage of request {row.get('id')}: {error}") from error
    return sorted(calls, key=lambda call: call.time)
