"""The interface that every router implements: write `quality`, and scores, decisions and batches follow."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt

from .errors import InputError
from .query import Query

Floats = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]
Context = Mapping[str, str]

#: The formula that makes a win rate of two qualities; see `win_rate`.
Link = Literal["difference", "bradley-terry"]
LINKS: tuple[str, ...] = get_args(Link)

#: What made a decision. "default": neither the learned router nor a rule had a say, so the strong model answers.
Source = Literal["learned", "rules", "default"]

#: The `Decision.cause` when the score was compared with the threshold and nothing else decided.
THRESHOLD = "threshold"

_NONE_GIVEN: npt.NDArray[np.float64] = np.empty(0)
_ONE, _HALF, _TINY = np.float32(1), np.float32(0.5), np.float32(1e-7)


@dataclass(frozen=True, slots=True)
class Model:
    """One candidate model of the pool.

    Attributes:
        name: the model's name.
        input_price: USD per million input tokens; None: not known.
        output_price: USD per million output tokens; None: not known.

    Example:
        >>> from routelearn import Model
        >>> Model("gpt-4o-mini", input_price=0.15, output_price=0.60).output_price
        0.6
    """

    name: str
    input_price: float | None = None
    output_price: float | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """The model chosen for one query, and why.

    Attributes:
        model: the chosen model.
        score: expected win rate of strong over weak, ties one half, in [0, 1].
        threshold: score at or above it goes to strong.
        candidates: every model of the pool: the chosen model first, then the others from the best quality down.
        source: what decided: "learned" (the learned router), "rules", or "default" (no rule fired: the strong model).
        reason: one readable sentence.
        truncated: the router did not read all of the query, because it is longer than the token budget.
        cause: one word for the kind of reason, to count decisions by: "threshold", or the word of the fallback,
            policy or session that decided.
        propensity: the probability with which this model was chosen; below 1 only when a policy explores.
        targets: the models to ask when several answer together; empty: ask `model` alone.

    Example:
        >>> from routelearn import RulesRouter
        >>> decision = RulesRouter("gpt-4o", "gpt-4o-mini").route("Hello!")
        >>> decision.model, decision.source
        ('gpt-4o-mini', 'rules')
    """

    model: str
    score: float
    threshold: float
    candidates: tuple[str, ...]
    source: Source
    reason: str
    truncated: bool = False
    cause: str = THRESHOLD
    propensity: float = 1.0
    targets: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the decision as plain data for JSON."""
        return asdict(self)


@dataclass(slots=True)
class Assessment:
    """What a router says about n queries and the m models of its pool; every list has n rows.

    Attributes:
        quality: float32 (n, m), expected score of each model's answer, in [0, 1].
        truncated: bool (n,), true when the router did not read all of the query.
        novelty: float32 (n,), distance from the training queries; None: not measured.
        vectors: float32 (n, k), a sketch of each query's encoding, to watch for drift; None: not measured.
        sources: what each row comes from; "learned" unless given.
        reasons: one sentence a row; an empty one (the default) means that score and threshold were compared.
        causes: the `Decision.cause` of each row; "threshold" unless given.
        thresholds: float64 (n,), a threshold that holds for this row alone; NaN (the default): the policy's.

    Raises:
        ValueError: a list or an array has another number of rows than `quality`.

    Example:
        >>> import routelearn
        >>> assessment = routelearn.load("router/").assess(["What is 2 + 2?", "Prove Fermat's last theorem."])
        >>> assessment.quality.shape[0], assessment.sources
        (2, ['learned', 'learned'])
        >>> assessment.rows([1]).quality.shape[0]
        1
    """

    quality: Floats
    truncated: Flags
    novelty: Floats | None = None
    vectors: Floats | None = None
    sources: list[Source] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    causes: list[str] = field(default_factory=list)
    thresholds: npt.NDArray[np.float64] = field(default_factory=lambda: _NONE_GIVEN)

    def __post_init__(self) -> None:
        """Fill what was not given, and refuse what has another number of rows."""
        n = len(self.quality)
        self.sources = self.sources or ["learned"] * n
        self.reasons = self.reasons or [""] * n
        self.causes = self.causes or [THRESHOLD] * n
        if self.thresholds is _NONE_GIVEN:
            self.thresholds = np.full(n, np.nan)
        if not len(self.truncated) == len(self.sources) == len(self.reasons) == len(self.causes) == n:
            raise ValueError(f"an assessment of {n} queries has a list of another length")
        if len(self.thresholds) != n or not all(
            column is None or len(column) == n for column in (self.novelty, self.vectors)
        ):
            raise ValueError(f"an assessment of {n} queries has an array of another length")

    def has_own_thresholds(self) -> bool:
        """Whether every row has a threshold of its own, so that a policy's threshold decides nothing."""
        return len(self.thresholds) > 0 and not np.isnan(self.thresholds).any()

    def rows(self, indices: Sequence[int]) -> Assessment:
        """The assessment of some of the queries, in the order of the indices."""
        rows = np.asarray(indices, np.intp)
        return Assessment(
            self.quality[rows],
            self.truncated[rows],
            None if self.novelty is None else self.novelty[rows],
            None if self.vectors is None else self.vectors[rows],
            [self.sources[row] for row in indices],
            [self.reasons[row] for row in indices],
            [self.causes[row] for row in indices],
            self.thresholds[rows],
        )

    def replaced(self, indices: Sequence[int], other: Assessment) -> Assessment:
        """A copy in which another router's assessment stands in some rows.

        Novelty and vectors stay as they are: they describe the query as this router's encoder saw it.

        Args:
            indices: k distinct rows to replace.
            other: the assessment of these k queries, its columns in the same order of models.
        """
        rows = np.asarray(indices, np.intp)
        copy = replace(
            self,
            quality=self.quality.copy(),
            truncated=self.truncated.copy(),
            sources=list(self.sources),
            reasons=list(self.reasons),
            causes=list(self.causes),
            thresholds=self.thresholds.copy(),
        )
        copy.quality[rows], copy.truncated[rows] = other.quality, other.truncated
        copy.thresholds[rows] = other.thresholds
        for place, row in enumerate(indices):
            copy.sources[row] = other.sources[place]
            copy.reasons[row] = other.reasons[place]
            copy.causes[row] = other.causes[place]
        return copy


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
        names = tuple(model.name for model in pool)
        if len(set(names)) != len(names) or not names:
            raise InputError(f"a pool needs distinct model names, got {list(names)}")
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
        self.threshold = float(threshold)
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
        return Assessment(self.quality(queries), np.zeros(len(queries), np.bool_))

    def index(self, model: str) -> int:
        """The column of a model in `quality`.

        Raises:
            InputError: the model is not in the pool; the message lists the pool.
        """
        try:
            return self._index[model]
        except KeyError:
            raise InputError(f"model {model!r} is not in the pool; there are {list(self.models)}") from None

    def win_rate(self, queries: Sequence[Query], model_a: str, model_b: str) -> Floats:
        """Predict the win rate of model_a over model_b, ties one half: float32 (n,) in [0, 1].

        Raises:
            InputError: a model is not in the pool, or a query is unusable.
        """
        a, b = self.index(model_a), self.index(model_b)
        quality = self.quality(queries)
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
        """Choose a model for each of n queries, as `route` does for one."""
        return decide_by(policy, self, self.assess(queries, contexts), contexts)

    def scores_of(self, assessment: Assessment) -> Floats:
        """Compute the scores (n,), float32, from an assessment of n queries."""
        quality = assessment.quality
        return win_rate(quality[:, self._index[self.strong]], quality[:, self._index[self.weak]], self.link)

    def goes_to_strong(self, assessment: Assessment, threshold: float) -> tuple[Floats, Flags, npt.NDArray[np.float64]]:
        """Compare scores with a threshold.

        Returns:
            The scores, whether each query goes to strong, and the threshold it was compared with: (n,) each.
        """
        scores = self.scores_of(assessment)
        limits = assessment.thresholds.copy()
        limits[np.isnan(limits)] = threshold
        return scores, scores >= limits, limits

    def decide(self, assessment: Assessment, threshold: float) -> list[Decision]:
        """Decide n queries by comparing their scores with a threshold."""
        strong, weak = self._index[self.strong], self._index[self.weak]
        scores, to_strong, limits = (values.tolist() for values in self.goes_to_strong(assessment, threshold))
        ranking = np.argsort(-assessment.quality, axis=1, kind="stable").tolist()
        truncated = assessment.truncated.tolist()
        decisions = []
        for row, score in enumerate(scores):
            chosen = strong if to_strong[row] else weak
            reason = assessment.reasons[row]
            if not reason:
                side = "at or above" if to_strong[row] else "below"
                reason = f"score {score:.4f} is {side} threshold {limits[row]:.4f}"
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
    return policy.decide(router, assessment, contexts)


def learned_rows(assessment: Assessment) -> list[int]:
    """The numbers of the rows that the learned router answered, in rising order."""
    return [row for row, source in enumerate(assessment.sources) if source == "learned"]


class ThresholdPolicy(ABC):
    """A policy that is one threshold on the score; a subclass implements `threshold_of`."""

    @abstractmethod
    def threshold_of(self, router: Router) -> float:
        """The threshold: score at or above it goes to strong."""

    def decide(
        self, router: Router, assessment: Assessment, contexts: Sequence[Context] | None = None
    ) -> list[Decision]:
        del contexts
        if assessment.has_own_thresholds():
            # No row needs the policy's threshold, and a FallbackRouter without a bundle has no table to take it from.
            return router.decide(assessment, router.threshold)
        return router.decide(assessment, self.threshold_of(router))
