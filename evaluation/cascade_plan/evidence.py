"""What router and verifier say of the known answers: the evidence that a cascade plan is made from."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...cascade.confidence import joint_confidence
from ...cascade.verifier import Verifier
from ...routers.base import Router
from ...routers.errors import InputError
from ...training.fit.metrics import Array, auroc, expected_calibration_error
from .answered_queries import AnsweredQueries

#: Number of answers that are verified one by one to time a single verification.
TIMED_ANSWERS = 20


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Known answers, and what router and verifier say of them.

    Attributes:
        answered: n queries with weak's answers.
        scores: (n,) the router's scores; None: there is no router.
        verified: (n,) the verifier's confidence.
        confidence: (n,) what escalates below a threshold: the verifier's confidence, or jointly with the router.
        verifier_cost: USD of verifying one answer.
        verifier_s: seconds that verifying one answer takes.
    """

    answered: AnsweredQueries
    scores: Array | None
    verified: Array
    confidence: Array
    verifier_cost: float
    verifier_s: float

    def verifier_figures(self, good_at: float) -> dict[str, float]:
        """AUROC and calibration error (ECE) of the verifier's confidence, and seconds of verifying one answer.

        Args:
            good_at: the score from which an answer is good.
        """
        good = self.answered.weak >= good_at
        return {
            "AUROC": auroc(self.verified, good),
            "ECE": expected_calibration_error(self.verified, good.astype(np.float64)),
            "seconds": self.verifier_s,
        }


def gather_evidence(
    answered: AnsweredQueries,
    verifier: Verifier,
    router: Router | None,
    strong: str,
    weak: str,
    joint: bool,
    usd_per_hour: float,
) -> Evidence:
    """Ask router and verifier about the known answers.

    Args:
        answered: n queries with weak's answers.
        verifier: judges the answers.
        router: scores the queries; None: cascades alone.
        strong: name of the strong model.
        weak: name of the weak model.
        joint: whether the router's expectation of strong counts for an escalation.
        usd_per_hour: price of the machine that verifies; its time is measured here.

    Raises:
        InputError: a router is needed, or joint escalation cannot use this one.
    """
    if joint and router is None:
        raise InputError(
            "joint was set without a router; expected a router, which estimates the quality of strong's answer"
        )
    if verifier.needs_prior and router is None:
        raise InputError(
            "no router was given, but the verifier was trained with a router's score; expected that router"
        )
    scores = None if router is None else router.win_rate(answered.queries, strong, weak).astype(np.float64)
    priors = None if router is None or not verifier.needs_prior else router.score(answered.queries).tolist()
    start = time.perf_counter()
    verified = verifier.confidence(answered.queries, answered.answers, priors).astype(np.float64)
    seconds_each = (time.perf_counter() - start) / len(answered)
    confidence = verified
    if joint and router is not None:
        if router.link == "bradley-terry":
            raise InputError(
                "joint was set, but the router was trained on preferences; expected a router trained on scores"
            )
        quality = router.quality(answered.queries)[:, router.index(strong)].astype(np.float64)
        confidence = joint_confidence(verified, quality)
    return Evidence(
        answered=answered,
        scores=scores,
        verified=verified,
        confidence=confidence,
        verifier_cost=seconds_each / 3600 * usd_per_hour,
        verifier_s=_seconds(verifier, answered, priors),
    )


def _seconds(verifier: Verifier, answered: AnsweredQueries, priors: Sequence[float] | None) -> float:
    """Median seconds of verifying one answer alone, as a request waits for it."""
    taken = []
    for row in range(min(TIMED_ANSWERS, len(answered))):
        start = time.perf_counter()
        verifier.confidence(
            answered.queries[row : row + 1],
            answered.answers[row : row + 1],
            None if priors is None else priors[row : row + 1],
        )
        taken.append(time.perf_counter() - start)
    return float(np.median(taken))
