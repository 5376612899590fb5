"""Escalate by what strong would gain: the router knows the query, the verifier the answer."""

from __future__ import annotations

import asyncio

from ..routers.base import Router
from ..routers.errors import InputError
from ..routers.query import Query
from .backends import Answer
from .confidence import Ask, Confidence, Estimate


class Joint:
    """A `Confidence`: expected win rate of the answer over what strong would say, ``1/2 + (confidence - quality) / 2``.

    A query that strong would fail as well is not worth an escalation, however doubtful weak's answer is.
    """

    def __init__(self, confidence: Confidence, router: Router, strong: str | None = None) -> None:
        """Combine.

        Args:
            confidence: that the answer is good enough, calibrated.
            router: trained on performance records, so that its quality is an expected score.
            strong: the model that would answer instead; None: the router's strong one.

        Raises:
            InputError: the router never saw the model, or was trained on preferences: its quality is then no score.
        """
        if router.link == "bradley-terry":
            raise InputError("this router's quality is a win rate (link bradley-terry); expected one trained on scores")
        self.needs_prior = bool(getattr(confidence, "needs_prior", False))
        self._confidence = confidence
        self._router = router
        self._column = router.index(strong or router.strong)

    async def estimate(self, query: Query, answer: Answer, ask: Ask, prior: float | None = None) -> Estimate:
        """See `Confidence.estimate`."""
        found = await self._confidence.estimate(query, answer, ask, prior)
        quality = await asyncio.to_thread(self._router.quality, [query])
        return Estimate(0.5 + (found.confidence - float(quality[0, self._column])) / 2, found.answer)
