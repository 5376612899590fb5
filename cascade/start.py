"""The start of a request: the rule of the use case and the router's score choose the first tier to ask."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from ..routers.base import Router
from ..routers.error_log import log_error
from ..routers.query import Query
from .deadline import Deadline
from .threads import in_thread
from .tiers import Tier, UseCase

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Start:
    """The tier at which a request starts.

    Attributes:
        tier: index of the tier.
        verify: verify the answers of every tier but the last. False: accept the first answer.
        reason: why the request does not start at the first tier with verification; "" when it does.
        weaker: ask weaker tiers when this one fails.
        score: the router's score of the query; None when there is no router, or when it failed.
    """

    tier: int = 0
    verify: bool = True
    reason: str = ""
    weaker: bool = False
    score: float | None = None


async def choose_start(
    query: Query,
    rule: UseCase,
    deadline: Deadline,
    *,
    tiers: Sequence[Tier],
    router: Router | None,
    direct_threshold: float | None,
) -> Start:
    """Choose the tier at which a request starts.

    Args:
        query: the query.
        rule: the rule of the use case.
        deadline: the time that the request has left.
        tiers: the tiers of the cascade, the weakest first.
        router: scores the query, unless the rule already decides. When it fails, the request starts as if there were
            no router.
        direct_threshold: a score at or above this starts at the last tier, unless the rule has a threshold of its own.
    """
    mode, last = rule.mode, len(tiers) - 1
    if mode in {"strong", "weak"}:
        tier = last if mode == "strong" else 0
        return Start(tier, verify=False, reason=f"the use case asks for the {mode} model")
    if router is None:
        return Start()
    limit = direct_threshold if rule.direct_threshold is None else rule.direct_threshold
    if limit is None and mode == "route":
        limit = router.threshold
    score = await _score(router, query, deadline)
    if score is not None and limit is not None:
        if score >= limit and not deadline.too_late_for(tiers[last]):
            reason = f"its score {score:.2f} is at or above {limit:.2f}"
            return Start(last, verify=False, reason=reason, weaker=True, score=score)
        if score < limit and mode == "route":
            return Start(verify=False, reason=f"its score {score:.2f} is below {limit:.2f}", score=score)
    return Start(score=score)


async def _score(router: Router, query: Query, deadline: Deadline) -> float | None:
    """The router's score of the query, or None when the router fails."""
    try:
        score = float((await deadline.wait_for(in_thread(router.score, [query])))[0])
        if not 0 <= score <= 1:
            raise ValueError(f"the score is {score}; expected a number from 0 to 1")
    except Exception as error:  # noqa: BLE001 - without a score, the request cascades
        log_error(logger, "the router of the cascade failed", error, logging.WARNING)
        return None
    return score
