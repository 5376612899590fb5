"""The reference: how scores, novelties and encoder vectors of known queries were spread. Drift is told from it."""

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

#: Points at which a distribution is kept: every 2 %.
POINTS = 50
#: Fewest queries of a reference.
LEAST_REFERENCE = 50
#: Queries a covariance is estimated from, for each of its dimensions, at least.
QUERIES_PER_DIMENSION = 3
_MOST_POINTS, _MOST_DIMENSIONS = 10_000, 1024
_BATCH = 4096

Numbers = npt.NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Spread:
    """The distribution of one number over n queries.

    Attributes:
        n: queries.
        values: float32 (m,), rising; each was observed.
        shares: float64 (m,), the share of the queries at or below each value, rising to 1.
    """

    n: int
    values: npt.NDArray[np.float32]
    shares: npt.NDArray[np.float64]

    @classmethod
    def of(cls, numbers: Numbers) -> Spread:
        """From (n,) finite numbers, n >= 1: some `POINTS` points, exact at each whatever the distribution."""
        ordered = np.sort(np.asarray(numbers, np.float32))
        n = len(ordered)
        ranks = np.ceil(np.arange(1, POINTS + 1) / POINTS * n).astype(np.int64) - 1
        values = np.unique(ordered[ranks])
        return cls(n, values, np.searchsorted(ordered, values, side="right") / n)

    def counts(self, numbers: Numbers) -> npt.NDArray[np.int64]:
        """How many of some numbers fall at or below each value but above the one before, and beyond the last.

        Returns:
            int64 (m + 1,).
        """
        places = np.searchsorted(self.values, np.asarray(numbers, np.float32), side="left")
        return np.bincount(places, minlength=len(self.values) + 1)

    def as_dict(self) -> dict[str, Any]:
        """As plain data, ready for JSON."""
        return {
            "n": self.n,
            "values": [float(str(value)) for value in self.values],  # the few digits that a float32 needs
            "shares": [round(float(share), 9) for share in self.shares],
        }

    @classmethod
    def from_dict(cls, content: Any, what: str) -> Spread:
        """Read what `as_dict` wrote; raises InputError."""
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
        n: vectors.
        mean: float64 (k,).
        covariance: float64 (k, k).
    """

    n: int
    mean: npt.NDArray[np.float64]
    covariance: npt.NDArray[np.float64]

    @classmethod
    def of(cls, vectors: Numbers) -> Moments:
        """From (n, k) finite vectors, n >= 2."""
        vectors = np.asarray(vectors, np.float64)
        mean = vectors.mean(axis=0)
        centred = vectors - mean
        return cls(len(vectors), mean, centred.T @ centred / (len(vectors) - 1))

    def whitening(self) -> npt.NDArray[np.float64]:
        """(k', k): brings vectors to unit covariance; directions without variance are left out."""
        variance, directions = np.linalg.eigh(self.covariance)
        kept = variance > 1e-6 * max(float(variance[-1]), 1e-30)
        return np.asarray((directions[:, kept] / np.sqrt(variance[kept])).T)

    def as_dict(self) -> dict[str, Any]:
        """As plain data, ready for JSON."""
        return {
            "n": self.n,
            "mean": [_short(value) for value in self.mean],
            "covariance": [[_short(value) for value in row] for row in self.covariance],
        }

    @classmethod
    def from_dict(cls, content: Any) -> Moments:
        """Read what `as_dict` wrote; raises InputError."""
        mean = _array(content, "vector", "mean", 1)
        covariance = _array(content, "vector", "covariance", 2)
        if covariance.shape != (len(mean), len(mean)) or len(mean) > _MOST_DIMENSIONS:
            raise InputError(f"vector of a reference: a covariance of shape {covariance.shape} for {len(mean)} means")
        if not np.allclose(covariance, covariance.T) or np.linalg.eigvalsh(covariance)[0] < -1e-3 * np.trace(
            covariance
        ):
            raise InputError("vector of a reference: the covariance is no covariance (symmetric, not negative)")
        return cls(_count(content, "vector"), mean, covariance)


@dataclass(frozen=True, slots=True)
class Reference:
    """What stable traffic looks like; a bundle holds one (`Manifest.reference`), and `of` makes one from your traffic.

    Attributes:
        scores: of queries that the router was not fitted to.
        novelties: None: not measured.
        vectors: None: the graph gives none, or they were too few.
        novelty_bound: a query beyond it is unfamiliar; None: not known.
        unfamiliar: how many of the novelties lay beyond the bound.
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
        """From what a router said of some queries, not necessarily of the same ones.

        Args:
            scores: (n,).
            novelties: (n',), or None.
            vectors: (n'', k), or None.
            novelty_bound: a query beyond it is unfamiliar.

        Raises:
            InputError: fewer than `LEAST_REFERENCE` scores.
        """
        if len(scores) < LEAST_REFERENCE:
            raise InputError(f"a reference of {len(scores)} queries; expected at least {LEAST_REFERENCE}")
        measured = novelties if novelties is not None and len(novelties) >= LEAST_REFERENCE else None
        enough = vectors is not None and len(vectors) >= QUERIES_PER_DIMENSION * vectors.shape[1] > 0
        beyond = 0
        if measured is not None and novelty_bound is not None:
            beyond = int((np.asarray(measured) > novelty_bound).sum())
        return cls(
            Spread.of(scores),
            None if measured is None else Spread.of(measured),
            Moments.of(vectors) if vectors is not None and enough else None,
            novelty_bound,
            beyond,
        )

    @classmethod
    def of(cls, router: Router, queries: Sequence[Query]) -> Reference:
        """From your own recent traffic.

        Args:
            router: the router in use; of a fallback router, the learned one counts.
            queries: some thousand; those of a whole week, so that Monday is no drift.

        Raises:
            InputError: fewer than `LEAST_REFERENCE` queries, or one that is unusable.
        """
        router = router.learned or router
        parts = [router.assess(queries[start : start + _BATCH]) for start in range(0, len(queries), _BATCH)]
        if not parts:
            raise InputError(f"a reference of 0 queries; expected at least {LEAST_REFERENCE}")
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
        """As plain data, ready for JSON."""
        return {
            "score": self.scores.as_dict(),
            "novelty": None if self.novelties is None else self.novelties.as_dict(),
            "vector": None if self.vectors is None else self.vectors.as_dict(),
            "novelty_bound": self.novelty_bound,
            "unfamiliar": self.unfamiliar,
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Reference:
        """Read what `as_dict` wrote.

        Raises:
            InputError: it is no reference; the message names the part.
        """
        if not isinstance(content, Mapping) or "score" not in content:
            raise InputError("a reference is a JSON object with 'score', 'novelty' and 'vector'")
        novelty, vector = content.get("novelty"), content.get("vector")
        bound, unfamiliar = content.get("novelty_bound"), content.get("unfamiliar", 0)
        if bound is not None and not (isinstance(bound, (int, float)) and math.isfinite(bound)):
            raise InputError(f"novelty_bound of a reference is {bound!r}; expected a number or null")
        novelties = None if novelty is None else Spread.from_dict(novelty, "novelty")
        if not isinstance(unfamiliar, int) or not 0 <= unfamiliar <= (novelties.n if novelties else 0):
            raise InputError(f"unfamiliar of a reference is {unfamiliar!r}; expected a count among its novelties")
        return cls(
            Spread.from_dict(content["score"], "score"),
            novelties,
            None if vector is None else Moments.from_dict(vector),
            None if bound is None else float(bound),
            unfamiliar,
        )

    def save(self, path: str | Path) -> None:
        """Write it as JSON."""
        Path(path).write_text(json.dumps(self.as_dict(), indent=1, allow_nan=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Reference:
        """Read what `save` wrote.

        Raises:
            InputError: the file is not there, or is no reference.
        """
        try:
            return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"no reference can be read from {path}: {error}") from error


def reference_of(router: Router) -> Reference | None:
    """The reference that a router's bundle holds, or None.

    Raises:
        InputError: what the bundle holds is no reference.
    """
    return None if router.reference is None else Reference.from_dict(router.reference)


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def _count(content: Any, what: str) -> int:
    n = content.get("n") if isinstance(content, Mapping) else None
    if not isinstance(n, int) or not 1 <= n <= 10**12:
        raise InputError(f"{what} of a reference: n is {n!r}; expected a number of queries")
    return n


def _array(content: Any, what: str, name: str, dimensions: int) -> npt.NDArray[np.float64]:
    try:
        array = np.asarray(content[name], np.float64)
    except (TypeError, ValueError, KeyError) as error:
        raise InputError(f"{what} of a reference: {name} are no numbers ({error})") from error
    if array.ndim != dimensions or not 0 < len(array) <= _MOST_POINTS or not np.isfinite(array).all():
        raise InputError(f"{what} of a reference: {name} has shape {array.shape}; expected finite numbers")
    return array
