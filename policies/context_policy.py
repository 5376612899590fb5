"""Another policy for each tier or use case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ..routers.base import Assessment, Context, Decision, Router
from ..routers.errors import InputError
from .threshold import Policy, decide_by

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ByContext:
    """Decides each query by the policy for its context's value of a key.

    Nests: ``ByContext("tier", {"pro": ByContext("use_case", {...})})``.

    Attributes:
        key: of the context, such as "tier" or "use_case".
        policies: by the value of that key.
        default: for every other value, and where there is none; None: the router's own threshold.
    """

    key: str
    policies: Mapping[str, Policy]
    default: Policy | None = None

    def __post_init__(self) -> None:
        """Refuse a choice among no policies."""
        if not self.policies:
            raise InputError(f"no policies for {self.key!r}; expected one a value")

    def decide(
        self, router: Router, assessment: Assessment, contexts: Sequence[Context] | None = None
    ) -> list[Decision]:
        """See `Policy.decide`."""
        if contexts is None:
            return decide_by(self.default, router, assessment, contexts)
        rows_of: dict[str | None, list[int]] = {}
        for row, context in enumerate(contexts):
            value = context.get(self.key)
            rows_of.setdefault(value if value in self.policies else None, []).append(row)
        decided: dict[int, Decision] = {}
        for value, rows in rows_of.items():
            policy = self.default if value is None else self.policies[value]
            found = decide_by(policy, router, _part(assessment, rows), [contexts[row] for row in rows])
            decided.update(zip(rows, found, strict=True))
        return [decided[row] for row in range(len(contexts))]


def _part(assessment: Assessment, rows: list[int]) -> Assessment:
    """Some rows of an assessment, in this order."""

    def some(values: Sequence[T] | None) -> list[T] | None:
        return None if values is None else [values[row] for row in rows]

    return Assessment(
        assessment.quality[rows],
        assessment.truncated[rows],
        None if assessment.novelty is None else assessment.novelty[rows],
        some(assessment.sources),
        some(assessment.reasons),
        None if assessment.thresholds is None else assessment.thresholds[rows],
        some(assessment.causes),
        None if assessment.vectors is None else assessment.vectors[rows],
    )
