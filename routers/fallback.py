"""The router that is safe to embed: the learned router decides, and rules decide when it cannot be trusted."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from .assessment import Assessment
from .base import Link, Router
from .checks import check_number, check_seconds
from .decision import Context, Flags, Floats, Model
from .error_log import log_error
from .errors import InputError
from .forks import renew_in_child
from .query import Query, query_list
from .rules import RulesRouter

logger = logging.getLogger(__name__)

#: The `Decision.cause` when rules decide instead of the learned router.
FallbackCause = Literal["no-router", "load-failed", "unknown-model", "busy", "timeout", "error", "invalid", "novel"]

#: Number of threads that run the learned router under a time limit.
WORKERS = 8


class FallbackRouter(Router):
    """A learned router that is safe to embed: it always answers, and it says when rules answered.

    Rules answer when there is no bundle, the bundle does not load, the bundle does not know one of the two models,
    the learned router raises or is too slow, its qualities are not numbers from 0 to 1, or the query is unlike the
    training queries. When no rule fires, the strong model answers.

    The scores of rules are not calibrated, so the rows that rules answer are compared with the rules' own threshold.
    Models other than strong and weak have quality 0 in these rows, because rules know nothing about them.

    Attributes:
        rules: the rule-based router.
        unavailable: why there is no learned router; None: there is one.
        load_error: the error that loading the bundle raised, or None.

    Example:
        >>> from routelearn import FallbackRouter
        >>> FallbackRouter("router/").route("What is 2 + 2?").source
        'learned'
        >>> safe = FallbackRouter("no-such-folder/", strong="gpt-4o", weak="gpt-4o-mini")
        >>> safe.route("What is 2 + 2?").source
        'rules'
    """

    def __init__(
        self,
        learned: Router | str | Path | Exception | None,
        *,
        strong: str | None = None,
        weak: str | None = None,
        rules: RulesRouter | None = None,
        timeout_s: float | None = None,
        novelty_bound: float | None = None,
    ) -> None:
        """Take a loaded router, or load a bundle; a bundle that does not load is not an error.

        Args:
            learned: a router, the path of a bundle, the error that loading one raised, or None for rules alone.
            strong: the strong model; None: the learned router's strong model.
            weak: the weak model; None: the learned router's weak model.
            rules: the rule-based router; None: the default rules.
            timeout_s: the longest time that a batch may take, in seconds; None: no limit.
            novelty_bound: a query with a larger novelty is unfamiliar, and rules answer; None: the bundle's bound.

        Raises:
            InputError: strong and weak are not given and no learned router names them, or timeout_s is not above 0.
        """
        check_seconds("timeout_s", timeout_s)
        if novelty_bound is not None:
            check_number("novelty_bound", novelty_bound, "a number, or None")
        if learned is not None and not isinstance(learned, (Router, str, os.PathLike, Exception)):
            raise InputError(f"learned is {learned!r:.80}; expected a router, the path of a bundle, or None")
        if rules is not None and not isinstance(rules, RulesRouter):
            raise InputError(f"rules is {rules!r:.80}; expected RulesRouter(strong, weak), or None")
        self.load_error: Exception | None = None
        self.unavailable: str | None = None
        self._unavailable_cause: FallbackCause = "no-router"
        router = self._load(learned)
        if router is None and (strong is None or weak is None):
            raise InputError(
                f"{self.unavailable}; give the names of the strong and the weak model, so that rules can answer"
            ) from (self.load_error)
        strong = strong or (router.strong if router else "")
        weak = weak or (router.weak if router else "")
        pool = self._complete_pool(router, strong, weak)
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
        self._start_workers()
        renew_in_child(self, FallbackRouter._start_workers)

    def _start_workers(self) -> None:
        # (The threads of the pool start when they are needed.)
        self._worker = ThreadPoolExecutor(WORKERS, thread_name_prefix="routelearn") if self._timeout_s else None
        self._stuck: set[Future[Assessment]] = set()
        self._lock = threading.Lock()

    def _complete_pool(self, router: Router | None, strong: str, weak: str) -> list[Model]:
        """The router's pool with strong and weak added where it lacks them; then rules answer, and this says why."""
        pool: list[Model] = list(router.pool) if router else []
        for name in (strong, weak):
            if all(model.name != name for model in pool):
                pool.append(Model(name))
                if router is not None:
                    self.unavailable = f"model {name!r} was never seen in the router's training"
                    self._unavailable_cause = "unknown-model"
        return pool

    @property
    def learned(self) -> Router | None:
        """The learned router; None: rules answer everything."""
        return None if self._learned is None else self._learned.learned

    def _load(self, learned: Router | str | Path | Exception | None) -> Router | None:
        if learned is None:
            self.unavailable = "no learned router"
            return None
        if isinstance(learned, Router):
            return learned
        from .loading import load

        try:
            if isinstance(learned, Exception):
                raise learned
            return load(learned)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with a bundle, a service must answer
            logger.warning("the learned router does not load, rules answer: %s", error)
            self.load_error = error
            self.unavailable = f"the learned router does not load ({type(error).__name__}: {error})"
            self._unavailable_cause = "load-failed"
            return None

    def quality(self, queries: Sequence[Query]) -> Floats:
        return self.assess(queries).quality

    def assess(self, queries: Sequence[Query], contexts: Sequence[Context] | None = None) -> Assessment:
        if type(queries) is not list:
            queries = query_list(queries)
        if self._learned is None:
            return self._by_rules(queries, contexts, self.unavailable or "", self._unavailable_cause)
        try:
            assessment = self._assess_in_time(self._learned, queries, contexts)
            return self._replace_doubtful(assessment, queries, contexts)
        except InputError:  # the caller's mistake, which rules would meet as well
            raise
        except _TooSlowError as error:
            return self._by_rules(queries, contexts, str(error), error.cause)
        except Exception as error:  # noqa: BLE001 - an inference error must not fail the request
            log_error(logger, "the learned router failed, rules answer", error, logging.WARNING)
            return self._by_rules(queries, contexts, f"the learned router failed ({type(error).__name__})", "error")

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
    """The learned router did not answer within the time limit."""

    def __init__(self, message: str, cause: FallbackCause) -> None:
        super().__init__(message)
        self.cause: FallbackCause = cause
