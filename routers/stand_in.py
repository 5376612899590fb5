"""What answers the queries that a learned router cannot: the general router, and where that cannot either, rules."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from .assessment import Assessment
from .base import Link, Router
from .decision import Context, Flags, Floats
from .error_log import log_error
from .errors import InputError
from .forks import new_lock
from .query import Query
from .rules import RulesRouter
from .shipped import MODELS

if TYPE_CHECKING:  # importing it takes as long as importing onnxruntime, which rules do not need
    from .general import GeneralRouter

logger = logging.getLogger(__name__)

#: The `Decision.cause` when something else decides instead of the learned router.
FallbackCause = Literal["no-router", "load-failed", "unknown-model", "busy", "timeout", "error", "invalid", "novel"]
FALLBACK_CAUSES: frozenset[str] = frozenset(get_args(FallbackCause))
#: After these causes the time of the caller is used up, so rules answer at once.
_LATE = frozenset({"busy", "timeout"})


@lru_cache(maxsize=1)
def shipped_general() -> GeneralRouter:
    """The general router that comes with routelearn, loaded once a process (some 0.2 s and 40 MB).

    Raises:
        BundleError: it is not there, or is not what was shipped.
    """
    from .loading import load

    return _as_general(load(MODELS / "general"))


class StandIn:
    """Answers in a learned router's place. Threads may share one.

    The general router answers the queries that are like those that it learned from; rules answer the others. Whatever
    goes wrong with the general router, rules answer.
    """

    def __init__(
        self,
        models: Sequence[str],
        link: Link,
        rules: RulesRouter,
        general: GeneralRouter | str | Path | bool,
        learned: Router | None,
    ) -> None:
        """Load nothing yet.

        Args:
            models: the names of the columns of quality.
            link: what makes a win rate of two qualities.
            rules: for the strong and the weak model.
            general: a general router, the path of one, True: the shipped one, or False: none.
            learned: the router in whose place this one answers. A general one needs no other in its place.
        """
        self._columns = {name: column for column, name in enumerate(models)}
        self._link = link
        self._rules = rules
        self._choice = general
        self._learned = learned
        self._lock = new_lock()
        self._opened = general is False
        self._general: GeneralRouter | None = None

    def general(self) -> GeneralRouter | None:
        """The general router, placed for strong and weak; it is loaded at the first call. None: rules alone answer."""
        if not self._opened:
            with self._lock:
                if not self._opened:
                    self._general = self._open()
                    self._opened = True
        return self._general

    def _open(self) -> GeneralRouter | None:
        try:
            from .general import GeneralRouter
            from .loading import load

            if isinstance(self._learned, GeneralRouter):
                return None
            chosen = self._choice
            if isinstance(chosen, bool):
                chosen = shipped_general()
            elif isinstance(chosen, (str, os.PathLike)):
                chosen = _as_general(load(chosen))
            strong, weak = self._rules.strong, self._rules.weak
            return chosen.placed(strong=strong, weak=weak, by_labels=_by_labels(self._learned, (strong, weak)))
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it, a service must answer
            logger.warning("the general router does not load, rules answer: %s", error)
            return None

    def assess(
        self,
        queries: Sequence[Query],
        contexts: Sequence[Context] | None,
        why: Sequence[str],
        causes: Sequence[FallbackCause],
    ) -> Assessment:
        """Assess n queries; each row has a threshold of its own, that of the router which answers.

        Args:
            queries: n queries.
            contexts: n contexts, or None.
            why: why the learned router does not answer, n sentences.
            causes: the same, n words.
        """
        n = len(queries)
        result = Assessment(np.zeros((n, len(self._columns)), np.float32), np.zeros(n, np.bool_))
        reasons = list(why)
        left = list(range(n))
        asked = [row for row, cause in enumerate(causes) if cause not in _LATE]
        general = self.general() if asked else None
        if general is not None:
            known, part = self._by_general(general, asked, queries, reasons)
            if part is not None:
                result = result.replaced(known, part)
                left = sorted(set(left) - set(known))
        if left:
            ruled = self._rules.assess(
                [queries[row] for row in left], [contexts[row] for row in left] if contexts else None
            )
            result = result.replaced(left, self._in_columns(ruled, self._rules))
        result.reasons = [f"{reason}; {said}" for reason, said in zip(reasons, result.reasons, strict=True)]
        result.causes = list(causes)
        return result

    def _by_general(
        self, general: GeneralRouter, asked: Sequence[int], queries: Sequence[Query], reasons: list[str]
    ) -> tuple[list[int], Assessment | None]:
        """The rows among those asked that the general router answers, and its answers; says why not the others."""
        try:
            found = general.assess([queries[row] for row in asked])
        except InputError:  # the caller's mistake, which rules would meet as well
            raise
        except Exception as error:  # noqa: BLE001 - an inference error must not fail the request
            log_error(logger, "the general router failed, rules answer", error, logging.WARNING)
            return [], None
        like: Flags = np.logical_and.reduce(np.isfinite(found.quality), axis=1)
        if general.novelty_bound is not None and found.novelty is not None:
            like = like & (found.novelty <= general.novelty_bound)
            for place in np.flatnonzero(~like).tolist():
                reasons[asked[place]] += (
                    f"; unlike the queries that the general router learned from (novelty {found.novelty[place]:.2f} > "
                    f"{general.novelty_bound:.2f})"
                )
        places = np.flatnonzero(like).tolist()
        if not places:
            return [], None
        found = found.rows(places)
        found.reasons = [decision.reason for decision in general.decide(found, general.threshold)]
        return [asked[place] for place in places], self._in_columns(found, general)

    def _in_columns(self, found: Assessment, by: Router) -> Assessment:
        """Another router's assessment in these columns, with its threshold; models that it does not know have 0."""
        quality: Floats = np.zeros((len(found.quality), len(self._columns)), np.float32)
        if by.link == self._link:
            for name, column in self._columns.items():
                if name in by.models:
                    quality[:, column] = found.quality[:, by.index(name)]
        else:
            strong, weak = self._columns[by.strong], self._columns[by.weak]
            scores = by.scores_of(found)
            if self._link == "difference":
                quality[:, strong], quality[:, weak] = scores, 1 - scores
            else:  # the qualities whose logits differ by the logit of the score
                odds = np.sqrt((1 - scores) / np.maximum(scores, 1e-12))
                quality[:, strong], quality[:, weak] = 1 / (1 + odds), odds / (1 + odds)
        return Assessment(
            quality,
            found.truncated,
            sources=found.sources,
            reasons=found.reasons,
            causes=found.causes,
            thresholds=np.full(len(quality), by.threshold),
        )


def _by_labels(learned: Router | None, names: tuple[str, str]) -> dict[str, float]:
    """The abilities of some models as the labels of a learned router place them, where its bundle says so."""
    from .learned import manifest_of

    manifest = None if learned is None else manifest_of(learned)
    stored = {} if manifest is None else manifest.training.get("general")
    abilities = stored.get("abilities") if isinstance(stored, dict) else None
    if not isinstance(abilities, dict):
        return {}
    return {
        name: float(abilities[name])
        for name in names
        if isinstance(abilities.get(name), (int, float)) and math.isfinite(abilities[name])
    }


def _as_general(router: Router) -> GeneralRouter:
    from .general import GeneralRouter

    if not isinstance(router, GeneralRouter):
        raise InputError(f"general is {type(router).__name__} of {list(router.models)}; expected a general router")
    return router
