"""The interface that every router implements: write `quality`, and scores, decisions and batches follow."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt

from .assessment import Assessment
from .call_checks import check_contexts, check_policy, threshold_number
from .decision import TRAINED, Context, Decision, Flags, Floats, Model
from .errors import InputError
from .query import Query, query_list

#: The formula that makes a win rate of two qualities; see `win_rate`.
Link = Literal["difference", "bradley-terry"]
LINKS: tuple[str, ...] = get_args(Link)

_ONE, _HALF, _TINY = np.float32(1), np.float32(0.5), np.float32(1e-7)


def win_rate(quality_a: Floats, quality_b: Floats, link: Link) -> Floats:
    """Compute the expected win rate of model a over model b, ties counting one half, from their qualities.

    "difference": ``1/2 + (quality_a - quality_b) / 2``, exact for independent
    outcomes in [0, 1]. "bradley-terry": ``sigmoid(logit(quality_a) -
    logit(quality_b))`` (Bradley and Terry 1952).

    Args:
        quality_a: float32 (n,).
        quality_b: float32 (n,).
        link: which of the two formulas.

    Returns:
        float32 (n,) in [0, 1].
    """
    if link == "difference":
        rates: Floats = (quality_a - quality_b) * _HALF + _HALF
        return rates
    won = quality_a * (_ONE - quality_b) + _TINY  # the small term makes the rate one half where both are certain
    lost = quality_b * (_ONE - quality_a) + _TINY
    return np.asarray(won / (won + lost), np.float32)


def sigmoid(logit: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """``1 / (1 + exp(-logit))``, which does not overflow."""
    small = np.exp(-np.abs(logit))
    return np.asarray(np.where(logit >= 0, 1.0, small) / (1.0 + small))


class Router(ABC):
    """Scores queries and chooses a model for each.

    A subclass sets the attributes in its constructor and implements `quality`. A router that also measures
    truncation or novelty, or gives reasons, overrides `assess` as well.

    Attributes:
        pool: the candidate models with their prices.
        models: the names of the pool's models, in the order of the columns of `quality`.
        strong: name of the strong model of the binary decision.
        weak: name of the weak model.
        link: the formula that makes a win rate of two qualities.
        threshold: the default threshold on the score.
        threshold_table: (strong share, threshold) pairs measured on validation queries, by
            rising share; empty: the router was never calibrated.
        novelty_bound: a query with a larger novelty is unlike the training queries; None: not measured.
        guarantee: the guaranteed threshold of the router's bundle, see docs/bundle.md; None: there is none.
        reference: what stable traffic looks like, as the bundle holds it, see `monitoring.reference`; None: not known.
        doubt: what the reasons of decisions by the threshold end with, when the scores are not calibrated; else empty.

    Example:
        >>> import numpy as np
        >>> from routelearn import Model, Router
        >>> class LongIsHard(Router):
        ...     def quality(self, queries):
        ...         hard = np.array([min(1, len(query) / 1000) for query in queries])
        ...         return np.stack([np.ones(len(queries)), 1 - hard], axis=1).astype(np.float32)
        >>> router = LongIsHard([Model("large"), Model("small")], strong="large", weak="small", threshold=0.6)
        >>> router.score(["short", "long " * 100]).round(2).tolist()
        [0.5, 0.75]
        >>> router.route("short").model
        'small'
    """

    novelty_bound: float | None = None
    guarantee: Mapping[str, Any] | None = None
    reference: Mapping[str, Any] | None = None
    doubt: str = ""

    def __init__(
        self,
        pool: Sequence[Model],
        strong: str,
        weak: str,
        *,
        link: Link = "difference",
        threshold: float = 0.5,
        threshold_table: Sequence[tuple[float, float]] = (),
    ) -> None:
        """Check that the pool has distinct names and holds the two models of the decision.

        Raises:
            InputError: the pool is empty or has a name twice, or strong and weak are not two models of it.
        """
        for model in pool:
            if not isinstance(model, Model):
                raise InputError(f"the pool holds {model!r:.80}; expected models, such as Model('gpt-4o')")
        names = tuple(model.name for model in pool)
        if len(set(names)) != len(names) or not names:
            raise InputError(f"the pool has the models {list(names)}; expected distinct names, one or more")
        self.pool = tuple(pool)
        self.models = names
        self._index = {name: i for i, name in enumerate(names)}
        self.strong = strong
        self.weak = weak
        if self.index(strong) == self.index(weak):
            raise InputError(f"strong and weak are both {strong!r}; expected two models of the pool")
        if link not in LINKS:
            raise InputError(f"link is {link!r}; expected one of {list(LINKS)}")
        self.link: Link = link
        self.threshold = threshold_number(threshold)
        self.threshold_table = tuple((float(share), float(value)) for share, value in threshold_table)

    @property
    def learned(self) -> Router | None:
        """The learned router that answers: this one, or the one inside; None: rules answer everything."""
        return self

    @abstractmethod
    def quality(self, queries: Sequence[Query]) -> Floats:
        """Predict the score of every model's answer to every query.

        Args:
            queries: n queries.

        Returns:
            float32 (n, m) in [0, 1], columns in the order of `models`.

        Raises:
            InputError: a query is neither a string nor a list of messages.
            InferenceError: the router failed.
        """

    def assess(self, queries: Sequence[Query], contexts: Sequence[Context] | None = None) -> Assessment:
        """Predict the qualities, and say what else is known about each query.

        Args:
            queries: n queries.
            contexts: n mappings that describe the requests (such as {"tier": "pro"}), for routers that use them.
        """
        del contexts
        queries = query_list(queries)
        return Assessment(self.quality(queries), np.zeros(len(queries), np.bool_))

    def index(self, model: str) -> int:
        """The column of a model in `quality`.

        Raises:
            InputError: the model is not in the pool; the message lists the pool.
        """
        try:
            return self._index[model]
        except (KeyError, TypeError):  # what cannot be hashed is no name
            raise InputError(f"model {model!r:.80} is not in the pool; expected one of {list(self.models)}") from None

    def win_rate(self, queries: Sequence[Query], model_a: str, model_b: str) -> Floats:
        """Predict the win rate of model_a over model_b, ties one half: float32 (n,) in [0, 1].

        Raises:
            InputError: a model is not in the pool, or a query is unusable.
        """
        a, b = self.index(model_a), self.index(model_b)
        quality = self.quality(query_list(queries))
        return win_rate(quality[:, a], quality[:, b], self.link)

    def score(self, queries: Sequence[Query]) -> Floats:
        """Predict the win rate of strong over weak, ties one half: float32 (n,) in [0, 1]."""
        return self.win_rate(queries, self.strong, self.weak)

    def route(self, query: Query, policy: Policy | None = None, context: Context | None = None) -> Decision:
        """Choose a model for one query; without a policy, the router's own threshold decides."""
        return self.route_batch([query], policy, None if context is None else [context])[0]

    def route_batch(
        self,
        queries: Sequence[Query],
        policy: Policy | None = None,
        contexts: Sequence[Context] | None = None,
    ) -> list[Decision]:
        """Choose a model for each of n queries, as `route` does for one.

        Raises:
            InputError: the queries, the policy or the contexts are not such, or there are not n contexts.
        """
        if type(queries) is not list:
            queries = query_list(queries)
        if contexts is not None:
            check_contexts(contexts, len(queries))
        return decide_by(policy, self, self.assess(queries, contexts), contexts)

    def scores_of(self, assessment: Assessment) -> Floats:
        """Compute the scores (n,), float32, from an assessment of n queries."""
        try:
            quality = assessment.quality
        except AttributeError:
            raise InputError(f"assessment is {assessment!r:.80}; expected router.assess(queries)") from None
        return win_rate(quality[:, self._index[self.strong]], quality[:, self._index[self.weak]], self.link)

    def goes_to_strong(self, assessment: Assessment, threshold: float) -> tuple[Floats, Flags, npt.NDArray[np.float64]]:
        """Compare scores with a threshold.

        Returns:
            The scores, whether each query goes to strong, and the threshold it was compared with: (n,) each.
        """
        if type(threshold) is not float or threshold != threshold:  # noqa: PLR0124 - NaN; math.isnan takes longer
            threshold = threshold_number(threshold)
        scores = self.scores_of(assessment)
        if assessment.thresholds is not None:
            limits = np.where(np.isnan(assessment.thresholds), threshold, assessment.thresholds)
        else:
            limits = np.empty(len(scores), np.float64)
            limits.fill(threshold)  # np.full takes three times as long for a single query
        return scores, scores >= limits, limits

    def decide(self, assessment: Assessment, threshold: float) -> list[Decision]:
        """Decide n queries by comparing their scores with a threshold.

        Raises:
            InputError: the threshold is no number; a policy decides by ``policy.decide(router, assessment)``.
        """
        strong, weak = self._index[self.strong], self._index[self.weak]
        scores, to_strong, limits = (values.tolist() for values in self.goes_to_strong(assessment, threshold))
        ranking = (-assessment.quality).argsort(axis=1, kind="stable").tolist()
        truncated = assessment.truncated.tolist()
        decisions = []
        for row, score in enumerate(scores):
            chosen = strong if to_strong[row] else weak
            reason = assessment.reasons[row]
            if not reason:
                side = "at or above" if to_strong[row] else "below"
                reason = f"score {score:.4f} is {side} threshold {limits[row]:.4f}{self.doubt}"
            decisions.append(
                Decision(
                    model=self.models[chosen],
                    score=score,
                    threshold=limits[row],
                    candidates=(self.models[chosen], *(self.models[i] for i in ranking[row] if i != chosen)),
                    source=assessment.sources[row],
                    reason=reason,
                    truncated=truncated[row],
                    cause=assessment.causes[row],
                )
            )
        return decisions


class Policy(Protocol):
    """Chooses a model for each query of a batch from the router's assessment of the batch."""

    def decide(
        self, router: Router, assessment: Assessment, contexts: Sequence[Context] | None = None
    ) -> list[Decision]:
        """Decide every row of an assessment.

        Args:
            router: the router that made the assessment.
            assessment: what the router says about n queries.
            contexts: n mappings that describe the requests, or None.

        Returns:
            n decisions, in the order of the rows.
        """
        ...


def decide_by(
    policy: Policy | None, router: Router, assessment: Assessment, contexts: Sequence[Context] | None
) -> list[Decision]:
    """Decide by a policy, or by the router's own threshold when the policy is None."""
    if policy is None:
        return router.decide(assessment, router.threshold)
    if isinstance(policy, type) or hasattr(policy, "assess") or not hasattr(policy, "decide"):  # 0.1 us
        check_policy(policy)
    return policy.decide(router, assessment, contexts)


def check_router(router: object, name: str = "router", *, or_none: bool = False) -> None:
    """Refuse what is no router, such as the path of one.

    Args:
        router: what was given.
        name: its name, for the message.
        or_none: None is allowed as well.

    Raises:
        InputError: it is none; the message says what to write.
    """
    if isinstance(router, Router) or (or_none and router is None):
        return
    expected = "a router, such as routelearn.load(path)" + (", or None" if or_none else "")
    raise InputError(f"{name} is {router!r:.80}; expected {expected}")


def learned_rows(assessment: Assessment) -> list[int]:
    """The numbers of the rows that the trained router itself answered, in rising order.

    A row with a threshold of its own is the answer of another router in its place (see `FallbackRouter`), whose scores
    and qualities are on another scale.
    """
    rows = [row for row, source in enumerate(assessment.sources) if source in TRAINED]
    if assessment.thresholds is None:
        return rows
    foreign = (~np.isnan(assessment.thresholds)).tolist()
    return [row for row in rows if not foreign[row]]


class ThresholdPolicy(ABC):
    """A policy that is one threshold on the score; a subclass implements `threshold_of`.

    Example:
        >>> from routelearn import RulesRouter
        >>> from routelearn.routers import ThresholdPolicy
        >>> class HalfOfTheDefault(ThresholdPolicy):
        ...     def threshold_of(self, router):
        ...         return router.threshold / 2
        >>> RulesRouter("gpt-4o", "gpt-4o-mini").route("Hello!", HalfOfTheDefault()).threshold
        0.25
    """

    @abstractmethod
    def threshold_of(self, router: Router) -> float:
        """The threshold: score at or above it goes to strong."""

    def decide(
        self, router: Router, assessment: Assessment, contexts: Sequence[Context] | None = None
    ) -> list[Decision]:
        """Decide every row by the threshold; a row with a threshold of its own keeps it."""
        del contexts
        if router.learned is None and assessment.has_own_thresholds():
            # No row needs the policy's threshold, and a FallbackRouter without a bundle has no table to take it from.
            # Any other router is asked for its threshold, so that a policy that it cannot follow is an error always.
            return router.decide(assessment, router.threshold)
        return router.decide(assessment, self.threshold_of(router))
