"""What a router says about a batch of queries, before a policy decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from .decision import THRESHOLD, Flags, Floats, Source


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
        thresholds: float64 (n,), a threshold that holds for this row alone, NaN where a row has none; None (the
            default): no row has one.

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
    thresholds: npt.NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        """Fill what was not given, and refuse what has another number of rows."""
        n = len(self.quality)
        self.sources = self.sources or ["learned"] * n
        self.reasons = self.reasons or [""] * n
        self.causes = self.causes or [THRESHOLD] * n
        if not len(self.truncated) == len(self.sources) == len(self.reasons) == len(self.causes) == n:
            raise ValueError(f"an assessment of {n} queries has a list of another length")
        for column in (self.novelty, self.vectors, self.thresholds):
            if column is not None and len(column) != n:
                raise ValueError(f"an assessment of {n} queries has an array of {len(column)} rows")

    def has_own_thresholds(self) -> bool:
        """Whether every row has a threshold of its own, so that a policy's threshold decides nothing."""
        return self.thresholds is not None and len(self.thresholds) > 0 and not np.isnan(self.thresholds).any()

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
            None if self.thresholds is None else self.thresholds[rows],
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
        )
        copy.quality[rows], copy.truncated[rows] = other.quality, other.truncated
        if self.thresholds is not None or other.thresholds is not None:
            thresholds = np.full(len(self.quality), np.nan) if self.thresholds is None else self.thresholds.copy()
            thresholds[rows] = np.nan if other.thresholds is None else other.thresholds
            copy.thresholds = thresholds
        for place, row in enumerate(indices):
            copy.sources[row] = other.sources[place]
            copy.reasons[row] = other.reasons[place]
            copy.causes[row] = other.causes[place]
        return copy
