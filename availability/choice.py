"""The model that `Availability.choose` chose, and the candidates that it chose among."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..routers.decision import Decision
from ..routers.errors import InputError


@dataclass(frozen=True, slots=True)
class Choice:
    """The model to ask now.

    Attributes:
        model: name of the chosen candidate.
        position: position of the chosen candidate, 0 for the first.
        reason: one readable sentence, which also says why each candidate before this one was skipped.
        probe: True when this request is a probe, which finds out whether the model is back.
        degraded: True when no candidate is available and this one is the last resort.
        lease: number of the probe, which tells its outcome from the outcomes of other calls; None for other requests.

    Example:
        >>> from routelearn.availability import Availability
        >>> choice = Availability().choose(["sim-max", "sim-small"])
        >>> choice.model, choice.position, choice.degraded
        ('sim-max', 0, False)
        >>> choice.reason
        'sim-max is the first available candidate'
    """

    model: str
    position: int
    reason: str
    probe: bool = False
    degraded: bool = False
    lease: int | None = None


def names_of(candidates: Decision | Sequence[str]) -> Sequence[str]:
    """The names of candidates, the best one first.

    Raises:
        InputError: there are none.
    """
    names = candidates.candidates if isinstance(candidates, Decision) else candidates
    wrong = isinstance(names, str) or not isinstance(names, Sequence) or not names
    if wrong or not all(isinstance(name, str) for name in names):
        raise InputError(f"candidates are {names!r}; expected a decision, or a sequence of at least one model name")
    return names
