"""Learned first, rules when learned cannot be trusted, and always a word on why."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from .base import Assessment, Context, Flags, Floats, Link, Model, Router
from .errors import InputError
from .query import Query
from .rules import RulesRouter

logger = logging.getLogger(__name__)

#: Why rules answer in the place of the learned router: `Decision.cause`.
FallbackCause = Literal["no-router", "load-failed", "unknown-model", "busy", "timeout", "error", "invalid", "novel"]

#: Threads that answer under a time limit.
WORKERS = 8


class FallbackRouter(Router):
    """A learned router that is safe to embed: it always answers, and says when it is the rules that answer.

    Rules answer when there is no bundle, it does not load, a model was never
    seen by it, it raises, it is too slow, its answer is no probability, or the
    query is unlike the training queries. When no rule fires, the answer is the
    strong model.

    Rows that the rules answer are decided at the rules' own threshold (their
    score is on no calibrated scale), and models other than strong and weak have
    quality 0 there, so that nothing prefers a model the rules know nothing of.

    Attributes:
        rules: the rule-based router.
        unavailable: why there is no learned router, or None.
        load_error: what loading the bundle raised, or None.
    """

    def __init__(
        self,
        learned: Router | str | Path | None,
        *,
        strong: str | None = None,
        weak: str | None = None,
        rules: RulesRouter | None = None,
        timeout_s: float | None = None,
        novelty_bound: float | None = None,
    ) -> None:
        """Take a loaded router, or try to load a bundle.

        Args:
            learned: a router, the path of a bundle, or None for rules alone.
            strong: the strong model; None: the learned router's.
            weak: the weak model; None: the learned router's.
            rules: the rule-based router; None: the default rules.
            timeout_s: longest a batch may take, seconds; None: no limit.
            novelty_bound: beyond it a query is unfamiliar; None: the bundle's own bound.

        Raises:
            InputError: no learned router to take the names of strong and weak from, or a bad timeout.
        """
        if timeout_s is not None and not timeout_s > 0:
            raise InputError(f"timeout_s is {timeout_s}; expected seconds above 0, or None")
        self.load_error: Exception | None = None
        self.unavailable: str | None = None
        self._unavailable_cause: FallbackCause = "no-router"
        router = self._load(learned)
        if router is None and (strong is None or weak is None):
            raise InputError(f"{self.unavailable}: name the strong and the weak model to answer by rules") from (
                self.load_error
            )
        strong = strong or (router.strong if router else "")
        weak = weak or (router.weak if router else "")
        pool: list[Model] = list(router.pool) if router else []
        known = {model.name for model in pool}
        for name in (strong, weak):
            if router is not None and name not in known:
                self.unavailable = f"model {name!r} was never seen by the router"
                self._unavailable_cause = "unknown-model"
            if name not in known:
                pool.append(Model(name))
                known.add(name)
        link: Link = router.link if router else "difference"
        same_pair = router is not None and (strong, weak) == (router.strong, router.weak)
        super().__init__(
            pool,
            strong,
            weak,
            link=link,
            threshold=router.threshold if router else 0.5,
            threshold_table=router.threshold_table if router is not None and same_pair else (),
        )
        self._learned = None if self.unavailable else router
        self.rules = RulesRouter(strong, weak, rules=rules.rules if rules else None)
        self.novelty_bound = router.novelty_bound if router and novelty_bound is None else novelty_bound
        if self._learned is not None:
            self.guarantee, self.reference = self._learned.guarantee, self._learned.reference
        self._timeout_s = timeout_s
        self._worker = ThreadPoolExecutor(WORKERS, thread_name_prefix="routelearn") if timeout_s else None
        self._stuck: set[Future[Assessment]] = set()
        self._lock = threading.Lock()

    @property
    def learned(self) -> Router | None:
        """The learned router, or None: rules answer everything."""
        return None if self._learned is None else self._learned.learned

    def _load(self, learned: Router | str | Path | None) -> Router | None:
        if learned is None:
            self.unavailable = "no learned router"
            return None
        if isinstance(learned, Router):
            return learned
        from .learned import load

        try:
            return load(learned)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with a bundle, a service must answer
            logger.warning("the learned router does not load, rules answer: %s", error)
            self.load_error = error
            self.unavailable = f"the learned router does not load ({type(error).__name__}: {error})"
            self._unavailable_cause = "load-failed"
            return None

    def quality(self, queries: Sequence[Query]) -> Floats:
        """See `Router.quality`."""
        return self.assess(queries).quality

    def assess(self, queries: Sequence[Query], contexts: Sequence[Context] | None = None) -> Assessment:
        """See `Router.assess`; sources and reasons say which rows the rules answered, and why."""
        if self._learned is None:
            return self._by_rules(queries, contexts, self.unavailable or "", self._unavailable_cause)
        try:
            assessment = self._assess_in_time(self._learned, queries, contexts)
        except InputError:  # the caller's mistake, which rules would meet as well
            raise
        except _TooSlowError as error:
            return self._by_rules(queries, contexts, str(error), error.cause)
        except Exception as error:  # noqa: BLE001 - an inference error must not fail the request
            logger.warning("the learned router failed, rules answer: %s", error)
            return self._by_rules(queries, contexts, f"the learned router failed ({type(error).__name__})", "error")
        return self._replace_doubtful(assessment, queries, contexts)

    def _assess_in_time(
        self, learned: Router, queries: Sequence[Query], contexts: Sequence[Context] | None
    ) -> Assessment:
        if self._worker is None:
            return learned.assess(queries, contexts)
        with self._lock:
            # A thread cannot be killed: while every worker hangs in a call that ran out of time, rules answer
            # at once, and no further thread piles up.
            self._stuck = {future for future in self._stuck if not future.done()}
            if len(self._stuck) >= WORKERS:
                message = "the learned router is still busy with earlier queries that ran out of time"
                raise _TooSlowError(message, "busy")
        future = self._worker.submit(learned.assess, queries, contexts)
        try:
            return future.result(self._timeout_s)
        except FutureTimeoutError:
            if not future.cancel():
                with self._lock:
                    self._stuck.add(future)
            raise _TooSlowError(f"the learned router took longer than {self._timeout_s:g} s", "timeout") from None

    def _replace_doubtful(
        self, assessment: Assessment, queries: Sequence[Query], contexts: Sequence[Context] | None
    ) -> Assessment:
        quality = assessment.quality
        if quality.shape != (len(queries), len(self.models)):
            why_all = f"the learned router gave an array of shape {quality.shape}"
            return self._by_rules(queries, contexts, why_all, "invalid")
        sane = np.isfinite(quality) & (quality >= 0) & (quality <= 1)
        invalid: Flags = np.logical_not(np.logical_and.reduce(sane, axis=1))
        doubtful = invalid
        if self.novelty_bound is not None and assessment.novelty is not None:
            doubtful = invalid | ~(assessment.novelty <= self.novelty_bound)
        if not doubtful.any():
            return assessment
        rows: list[int] = np.flatnonzero(doubtful).tolist()
        why: list[str] = []
        causes: list[FallbackCause] = []
        for row in rows:
            if invalid[row] or assessment.novelty is None:
                causes.append("invalid")
                why.append("the learned router gave no probability")
            else:
                causes.append("novel")
                why.append(
                    f"unlike the training queries (novelty {assessment.novelty[row]:.2f} > {self.novelty_bound:.2f})"
                )
        ruled = self._by_rules(
            [queries[row] for row in rows], [contexts[row] for row in rows] if contexts else None, why, causes
        )
        # The learned router's own flags stay: it read the query, whoever decides.
        return assessment.replaced(rows, replace(ruled, truncated=assessment.truncated[rows]))

    def _by_rules(
        self,
        queries: Sequence[Query],
        contexts: Sequence[Context] | None,
        why: str | Sequence[str],
        cause: FallbackCause | Sequence[FallbackCause],
    ) -> Assessment:
        ruled = self.rules.assess(queries, contexts)
        scores = 0.5 + (ruled.quality[:, 0] - ruled.quality[:, 1]) / 2
        strong, weak = self.index(self.strong), self.index(self.weak)
        quality = np.zeros((len(queries), len(self.models)), np.float32)
        if self.link == "difference":
            quality[:, strong], quality[:, weak] = ruled.quality[:, 0], ruled.quality[:, 1]
        else:  # the qualities whose logits differ by the logit of the score
            odds = np.sqrt((1 - scores) / np.maximum(scores, 1e-12))
            quality[:, strong], quality[:, weak] = 1 / (1 + odds), odds / (1 + odds)
        reasons = [f"{why if isinstance(why, str) else why[row]}; {reason}" for row, reason in enumerate(ruled.reasons)]
        thresholds = np.full(len(queries), self.rules.threshold)
        causes: list[str] = [cause] * len(queries) if isinstance(cause, str) else list(cause)
        return replace(ruled, quality=quality, reasons=reasons, thresholds=thresholds, causes=causes)


class _TooSlowError(Exception):
    """The learned router did not answer within the time allowed."""

    def __init__(self, message: str, cause: FallbackCause) -> None:
        super().__init__(message)
        self.cause: FallbackCause = cause
