"""The router that is safe to embed: the learned router decides, and others decide when it cannot be trusted."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

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
from .stand_in import FallbackCause, StandIn

if TYPE_CHECKING:
    from .general import GeneralRouter

logger = logging.getLogger(__name__)

#: Number of threads that run the learned router under a time limit.
WORKERS = 8


class FallbackRouter(Router):
    """A learned router that is safe to embed: it always answers, and it says when something else answered.

    The learned router does not answer when there is no bundle, the bundle does not load, the bundle does not know one
    of the two models, the learned router raises or is too slow, its qualities are not numbers from 0 to 1, or the query
    is unlike the training queries. Then the general router answers, which comes with routelearn and needs no labels;
    where the query is unlike those that it learned from as well, rules answer; and where no rule fires, the strong
    model. Rules also answer when the learned router is too slow, because then no time is left, and whenever something
    is wrong with the general router. A learned router that is a general router itself has no other in its place.

    Scores of different routers are not comparable, so a row that the general router or rules answer is compared with
    the threshold of that router. Models that it does not know have quality 0 in the row: all but strong and weak.

    The general router is loaded once a process (some 0.2 s and 40 MB): at construction when there is no learned
    router, or a time limit that loading would exceed; else at the first query that needs it.

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
        'general'
        >>> FallbackRouter(None, strong="gpt-4o", weak="gpt-4o-mini", general=False).route("What is 2 + 2?").source
        'rules'
    """

    def __init__(
        self,
        learned: Router | str | Path | Exception | None,
        *,
        strong: str | None = None,
        weak: str | None = None,
        rules: RulesRouter | None = None,
        general: GeneralRouter | str | Path | bool = True,
        timeout_s: float | None = None,
        novelty_bound: float | None = None,
    ) -> None:
        """Take a loaded router, or load a bundle; a bundle that does not load is not an error.

        Args:
            learned: a router, the path of a bundle or the name of a shipped one, the error that loading one raised, or
                None for no learned router. A general router is placed for strong and weak.
            strong: the strong model; None: the learned router's strong model.
            weak: the weak model; None: the learned router's weak model.
            rules: the rule-based router; None: the default rules.
            general: what answers before rules do. True: the general router that comes with routelearn; False: none; or
                a general router or the path of its bundle. It is placed for strong and weak.
            timeout_s: the longest time that a batch of the learned router may take, in seconds; None: no limit.
            novelty_bound: a query with a larger novelty is unfamiliar to the learned router; None: the bundle's bound.

        Raises:
            InputError: strong and weak are not given and no learned router names them, timeout_s is not above 0, or
                another argument is not as described.
        """
        _check(learned, rules, general, timeout_s, novelty_bound)
        self.load_error: Exception | None = None
        self.unavailable: str | None = None
        self._unavailable_cause: FallbackCause = "no-router"
        router = self._load(learned)
        strong, weak = self._names(router, strong, weak)
        router = _placed(router, strong, weak)
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
        self._stand_in = StandIn(self.models, link, self.rules, general, self._learned)
        if self._learned is None or timeout_s is not None:
            self._stand_in.general()
        self.novelty_bound = router.novelty_bound if router and novelty_bound is None else novelty_bound
        if self._learned is not None:
            self.guarantee, self.reference = self._learned.guarantee, self._learned.reference
            self.doubt = self._learned.doubt
        self._timeout_s = timeout_s
        self._start_workers()
        renew_in_child(self, FallbackRouter._start_workers)

    def _start_workers(self) -> None:
        # (The threads of the pool start when they are needed.)
        self._worker = ThreadPoolExecutor(WORKERS, thread_name_prefix="routelearn") if self._timeout_s else None
        self._stuck: set[Future[Assessment]] = set()
        self._lock = threading.Lock()

    def _names(self, router: Router | None, strong: str | None, weak: str | None) -> tuple[str, str]:
        """The names of the strong and the weak model; those of the router where none are given."""
        if router is not None:
            return strong or router.strong, weak or router.weak
        if strong is None or weak is None:
            raise InputError(
                f"{self.unavailable}; give the names of the strong and the weak model, so that something else can "
                "answer"
            ) from self.load_error
        return strong, weak

    def _complete_pool(self, router: Router | None, strong: str, weak: str) -> list[Model]:
        """The router's pool with strong and weak added where it lacks them; then the router does not answer."""
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
        """The learned router; None: there is none, and the general router and rules answer everything."""
        return None if self._learned is None else self._learned.learned

    @property
    def general(self) -> GeneralRouter | None:
        """The general router that answers in the learned router's place, loaded at first use; None: rules do."""
        return self._stand_in.general()

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
            logger.warning("the learned router does not load; the general router or rules answer: %s", error)
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
            return self._instead(queries, contexts, self.unavailable or "", self._unavailable_cause)
        try:
            assessment = self._assess_in_time(self._learned, queries, contexts)
            return self._replace_doubtful(assessment, queries, contexts)
        except InputError:  # the caller's mistake, which rules would meet as well
            raise
        except _TooSlowError as error:
            return self._instead(queries, contexts, str(error), error.cause)
        except Exception as error:  # noqa: BLE001 - an inference error must not fail the request
            log_error(logger, "the learned router failed; the general router or rules answer", error, logging.WARNING)
            return self._instead(queries, contexts, f"the learned router failed ({type(error).__name__})", "error")

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
            return self._instead(queries, contexts, why_all, "invalid")
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
        answers = self._stand_in.assess(
            [queries[row] for row in rows], [contexts[row] for row in rows] if contexts else None, why, causes
        )
        # The learned router's own flags stay: it read the query, whoever decides.
        return assessment.replaced(rows, replace(answers, truncated=assessment.truncated[rows]))

    def _instead(
        self,
        queries: Sequence[Query],
        contexts: Sequence[Context] | None,
        why: str,
        cause: FallbackCause,
    ) -> Assessment:
        """The stand-in's assessment of all of n queries, for one and the same reason."""
        causes: list[FallbackCause] = [cause] * len(queries)
        return self._stand_in.assess(queries, contexts, [why] * len(queries), causes)


class _TooSlowError(Exception):
    """The learned router did not answer within the time limit."""

    def __init__(self, message: str, cause: FallbackCause) -> None:
        super().__init__(message)
        self.cause: FallbackCause = cause


def _check(learned: object, rules: object, general: object, timeout_s: float | None, bound: float | None) -> None:
    """Refuse arguments that are not as described."""
    check_seconds("timeout_s", timeout_s)
    if bound is not None:
        check_number("novelty_bound", bound, "a number, or None")
    if learned is not None and not isinstance(learned, (Router, str, os.PathLike, Exception)):
        raise InputError(f"learned is {learned!r:.80}; expected a router, the path of a bundle, or None")
    if rules is not None and not isinstance(rules, RulesRouter):
        raise InputError(f"rules is {rules!r:.80}; expected RulesRouter(strong, weak), or None")
    if isinstance(general, (bool, str, os.PathLike)):
        return
    from .general import GeneralRouter

    if not isinstance(general, GeneralRouter):
        raise InputError(f"general is {general!r:.80}; expected True, False, a general router, or the path of one")


def _placed(router: Router | None, strong: str, weak: str) -> Router | None:
    """The same router; a general router for another pair is placed for this one."""
    if router is None or (router.strong, router.weak) == (strong, weak):
        return router
    from .general import GeneralRouter

    return router.placed(strong=strong, weak=weak) if isinstance(router, GeneralRouter) else router
