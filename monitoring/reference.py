"""The reference: distributions of scores, novelties and vectors of known queries, which drift is measured against."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..routers.base import Router
from ..routers.errors import InputError
from ..routers.query import Query
from .repeats import query_key

#: Number of points at which a distribution is kept: one every 2 %.
POINTS = 50
#: A reference needs at least this many queries.
LEAST_REFERENCE = 50
#: A covariance is estimated only from at least this many queries for each of its dimensions.
QUERIES_PER_DIMENSION = 3
_MOST_POINTS, _MOST_DIMENSIONS = 10_000, 1024
_BATCH = 4096

Numbers = npt.NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Spread:
    """The distribution of one number over n queries.

    Attributes:
        n: number of queries.
        values: float32 (m,), values that were observed, in rising order.
        shares: float64 (m,), share of the queries at or below each value, rising to 1.

    Example:
        >>> import numpy as np
        >>> from routelearn.monitoring import Spread
        >>> spread = Spread.of(np.array([0.1, 0.2, 0.2, 0.9]))
        >>> spread.shares.tolist(), spread.counts(np.array([0.15, 0.95])).tolist()
        ([0.25, 0.75, 1.0], [0, 1, 0, 1])
    """

    n: int
    values: npt.NDArray[np.float32]
    shares: npt.NDArray[np.float64]

    @classmethod
    def of(cls, numbers: Numbers) -> Spread:
        """The distribution of (n,) finite numbers, n >= 1, at up to `POINTS` points; each share is exact."""
        ordered = np.sort(np.asarray(numbers, np.float32))
        n = len(ordered)
        ranks = np.ceil(np.arange(1, POINTS + 1) / POINTS * n).astype(np.int64) - 1
        values = np.unique(ordered[ranks])
        return cls(n, values, np.searchsorted(ordered, values, side="right") / n)

    def counts(self, numbers: Numbers) -> npt.NDArray[np.int64]:
        """Count how many numbers fall into each interval between two values.

        Args:
            numbers: (n,) numbers.

        Returns:
            int64 (m + 1,): entry i counts the numbers above value i - 1 and at or below value i; the last entry counts
            the numbers above all values.
        """
        places = np.searchsorted(self.values, np.asarray(numbers, np.float32), side="left")
        return np.bincount(places, minlength=len(self.values) + 1)

    def as_dict(self) -> dict[str, Any]:
        """The same as plain data, ready for JSON."""
        return {
            "n": self.n,
            "values": [float(str(value)) for value in self.values],  # no more digits than a float32 needs
            "shares": [round(float(share), 9) for share in self.shares],
        }

    @classmethod
    def from_dict(cls, content: Any, what: str) -> Spread:
        """The distribution from the output of `as_dict`; raises InputError for anything else."""
        values = _array(content, what, "values", 1).astype(np.float32)
        shares = _array(content, what, "shares", 1)
        rising = (np.diff(values) > 0).all() and (np.diff(shares) > 0).all()
        if len(values) != len(shares) or not rising or not shares[0] > 0 or abs(shares[-1] - 1) > 1e-6:
            raise InputError(f"{what} of a reference: expected rising values, and as many shares that rise to 1")
        return cls(_count(content, what), values, shares)


@dataclass(frozen=True, slots=True)
class Moments:
    """Mean and covariance of n vectors.

    Attributes:
        n: number of vectors.
        mean: float64 (k,), the mean vector.
        covariance: float64 (k, k), the covariance matrix.

    Example:
        >>> import numpy as np
        >>> from routelearn.monitoring import Moments
        >>> moments = Moments.of(np.array([[0.0, 0.0], [2.0, 0.0]]))
        >>> moments.mean.tolist(), moments.covariance.tolist()
        ([1.0, 0.0], [[2.0, 0.0], [0.0, 0.0]])
    """

    n: int
    mean: npt.NDArray[np.float64]
    covariance: npt.NDArray[np.float64]

    @classmethod
    def of(cls, vectors: Numbers) -> Moments:
        """The moments of (n, k) finite vectors, n >= 2."""
        vectors = np.asarray(vectors, np.float64)
        mean = vectors.mean(axis=0)
        centred = vectors - mean
        return cls(len(vectors), mean, centred.T @ centred / (len(vectors) - 1))

    def whitening(self) -> npt.NDArray[np.float64]:
        """(k', k) matrix that gives vectors unit covariance. Directions without variance are left out."""
        variance, directions = np.linalg.eigh(self.covariance)
        kept = variance > 1e-6 * max(float(variance[-1]), 1e-30)
        return np.asarray((directions[:, kept] / np.sqrt(variance[kept])).T)

    def as_dict(self) -> dict[str, Any]:
        """The same as plain data, ready for JSON."""
        return {
            "n": self.n,
            "mean": [_short(value) for value in self.mean],
            "covariance": [[_short(value) for value in row] for row in self.covariance],
        }

    @classmethod
    def from_dict(cls, content: Any) -> Moments:
        """The moments from the output of `as_dict`; raises InputError for anything else."""
        mean = _array(content, "vector", "mean", 1)
        covariance = _array(content, "vector", "covariance", 2)
        if covariance.shape != (len(mean), len(mean)) or len(mean) > _MOST_DIMENSIONS:
            raise InputError(
                f"vector of a reference: the covariance has shape {covariance.shape}; expected "
                f"{(len(mean), len(mean))} as there are {len(mean)} means, {_MOST_DIMENSIONS} at most"
            )
        if not np.allclose(covariance, covariance.T) or np.linalg.eigvalsh(covariance)[0] < -1e-3 * np.trace(
            covariance
        ):
            raise InputError(
                "vector of a reference: the covariance is not symmetric, or has negative eigenvalues; "
                "expected a covariance matrix"
            )
        return cls(_count(content, "vector"), mean, covariance)


@dataclass(frozen=True, slots=True)
class Reference:
    """What stable traffic looks like. A bundle holds a reference, and `of` makes one from your own traffic.

    Attributes:
        scores: distribution of the scores of queries that the router was not fitted to.
        novelties: distribution of their novelties; None when they were not measured.
        vectors: moments of their vectors; None when the router gives no vectors, or gave too few.
        novelty_bound: a query with a larger novelty is unfamiliar; None when it is not known.
        unfamiliar: number of queries whose novelty lies beyond the bound.

    Example:
        >>> import routelearn
        >>> from routelearn.monitoring import Reference
        >>> queries = open("queries.txt").read().splitlines()
        >>> reference = Reference.of(routelearn.load("router/"), queries)
        >>> reference.scores.n == len(queries)
        True
    """

    scores: Spread
    novelties: Spread | None = None
    vectors: Moments | None = None
    novelty_bound: float | None = None
    unfamiliar: int = 0

    @classmethod
    def from_samples(
        cls,
        scores: Numbers,
        novelties: Numbers | None = None,
        vectors: Numbers | None = None,
        novelty_bound: float | None = None,
    ) -> Reference:
        """The reference of scores, novelties and vectors, which may come from different queries.

        Args:
            scores: (n,) scores.
            novelties: (n',) novelties, or None.
            vectors: (n'', k) vectors, or None.
            novelty_bound: a query with a larger novelty is unfamiliar; None when it is not known.

        Raises:
            InputError: fewer than `LEAST_REFERENCE` scores.
        """
        if len(scores) < LEAST_REFERENCE:
            raise InputError(f"the reference has {len(scores)} queries; expected at least {LEAST_REFERENCE}")
        measured = novelties if novelties is not None and len(novelties) >= LEAST_REFERENCE else None
        enough = vectors is not None and len(vectors) >= QUERIES_PER_DIMENSION * vectors.shape[1] > 0
        beyond = 0
        if measured is not None and novelty_bound is not None:
            beyond = int((np.asarray(measured) > novelty_bound).sum())
        return cls(
            scores=Spread.of(scores),
            novelties=None if measured is None else Spread.of(measured),
            vectors=Moments.of(vectors) if vectors is not None and enough else None,
            novelty_bound=novelty_bound,
            unfamiliar=beyond,
        )

    @classmethod
    def of(cls, router: Router, queries: Sequence[Query]) -> Reference:
        """The reference of your own recent traffic.

        Args:
            router: the router in use. A fallback router stands for the learned router inside.
            queries: some thousand queries. Take those of a whole week, so that a Monday does not look like drift. A
                query that repeats counts once.

        Raises:
            InputError: there are fewer than `LEAST_REFERENCE` different queries, or one of them is not usable.
        """
        router = router.learned or router
        keys = [query_key(query) for query in queries]
        # A query without a key stays: the router says what is wrong with it.
        queries = list({row if key is None else (key,): queries[row] for row, key in enumerate(keys)}.values())
        parts = [router.assess(queries[start : start + _BATCH]) for start in range(0, len(queries), _BATCH)]
        if not parts:
            raise InputError(f"the reference has 0 queries; expected at least {LEAST_REFERENCE}")
        scores = np.concatenate([router.scores_of(part) for part in parts])
        novelties = [part.novelty for part in parts if part.novelty is not None]
        vectors = [part.vectors for part in parts if part.vectors is not None]
        return cls.from_samples(
            scores,
            np.concatenate(novelties) if novelties else None,
            np.concatenate(vectors) if vectors else None,
            router.novelty_bound,
        )

    def as_dict(self) -> dict[str, Any]:
        """The same as plain data, ready for JSON."""
        return {
            "score": self.scores.as_dict(),
            "novelty": None if self.novelties is None else self.novelties.as_dict(),
            "vector": None if self.vectors is None else self.vectors.as_dict(),
            "novelty_bound": self.novelty_bound,
            "unfamiliar": self.unfamiliar,
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Reference:
        """The reference from the output of `as_dict`.

        Raises:
            InputError: the content is not a reference; the message names the wrong part.
        """
        if not isinstance(content, Mapping) or "score" not in content:
            raise InputError(
                f"the reference is a {type(content).__name__}; "
                "expected a JSON object with 'score', 'novelty' and 'vector'"
            )
        novelty, vector = content.get("novelty"), content.get("vector")
        bound, unfamiliar = content.get("novelty_bound"), content.get("unfamiliar", 0)
        if bound is not None and not (isinstance(bound, (int, float)) and math.isfinite(bound)):
            raise InputError(f"novelty_bound of a reference is {bound!r}; expected a number or null")
        novelties = None if novelty is None else Spread.from_dict(novelty, "novelty")
        if not isinstance(unfamiliar, int) or not 0 <= unfamiliar <= (novelties.n if novelties else 0):
            raise InputError(
                f"unfamiliar of a reference is {unfamiliar!r}; expected a number from 0 to the number of novelties"
            )
        return cls(
            scores=Spread.from_dict(content["score"], "score"),
            novelties=novelties,
            vectors=None if vector is None else Moments.from_dict(vector),
            novelty_bound=None if bound is None else float(bound),
            unfamiliar=unfamiliar,
        )

    def save(self, path: str | Path) -> None:
        """Write the reference to a JSON file."""
        Path(path).write_text(json.dumps(self.as_dict(), indent=1, allow_nan=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Reference:
        """Read a reference from a file that `save` wrote.

        Raises:
            InputError: the file is missing, or holds no reference.
        """
        try:
            return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"no reference can be read from {path}: {error}; expected a file that save wrote"
            ) from error


def reference_of(router: Router) -> Reference | None:
    """The reference in the bundle of a router; None when there is none.

    Raises:
        InputError: the reference in the bundle is broken.
    """
    return None if router.reference is None else Reference.from_dict(router.reference)


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def _count(content: Any, what: str) -> int:
    n = content.get("n") if isinstance(content, Mapping) else None
    if not isinstance(n, int) or not 1 <= n <= 10**12:
        raise InputError(f"{what} of a reference: n is {n!r}; expected a whole number of queries, 1 or more")
    return n


def _array(content: Any, what: str, name: str, dimensions: int) -> npt.NDArray[np.float64]:
    try:
        array = np.asarray(content[name], np.float64)
    except (TypeError, ValueError, KeyError) as error:
        raise InputError(f"{what} of a reference: {name} cannot be read ({error}); expected numbers") from error
    if array.ndim != dimensions or not 0 < len(array) <= _MOST_POINTS or not np.isfinite(array).all():
        raise InputError(
            f"{what} of a reference: {name} has shape {array.shape}; "
            f"expected finite numbers in {dimensions} dimensions, {_MOST_POINTS} rows at most"
        )
    return array
