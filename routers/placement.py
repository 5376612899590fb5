"""Places models on the ability scale of a general router, by a table, a benchmark score, a rating, or a tier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from .abilities import canonical_name
from .base import Link, sigmoid, win_rate
from .checks import check_number
from .errors import InputError
from .threshold_table import threshold_table

#: How a model was placed: by labels (`adapt`), by the table of the bundle, by its mean score on the user's traffic, by
#: an arena rating, or only as the strong or the weak model.
PlacedBy = Literal["labels", "table", "score", "rating", "tier"]

Items = npt.NDArray[np.float64]

#: Abilities beyond this are certain success or failure at every query.
_FARTHEST = 1e4
#: Share of the queries that the default threshold sends to strong.
STRONG_SHARE = 0.5
#: A number from here on is an arena rating; a number from 0 to 1 is a mean score.
LEAST_RATING = 100.0


@dataclass(frozen=True)
class Placement:
    """Where a model stands.

    Attributes:
        name: the name that the user gave.
        ability: on the scale of the bundle.
        by: how it was placed.
    """

    name: str
    ability: float
    by: PlacedBy

    @property
    def calibrated(self) -> bool:
        """Whether the ability comes from outcomes of the model, so that qualities are probabilities."""
        return self.by in {"labels", "table", "score"}

    def __str__(self) -> str:
        """In words, for the reason of a decision."""
        words = {
            "labels": "by labels",
            "table": "by the table of abilities",
            "score": "by its mean score",
            "rating": "by its rating",
            "tier": "only by its tier",
        }
        return f"{self.name} is placed {words[self.by]}"


def quality_of(items: npt.NDArray[Any], abilities: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Quality (n, m) of models with abilities (m,) at items (n, 2), pairs of a slope and an intercept."""
    return sigmoid(items[:, :1] * abilities + items[:, 1:])


def ability_at(items: Items, mean_quality: float) -> float:
    """The ability at which the mean quality over items (n, 2) is the given one, by bisection.

    Args:
        items: slopes and intercepts of the traffic.
        mean_quality: above 0 and below 1.
    """
    low, high = -_FARTHEST, _FARTHEST
    for _ in range(100):
        middle = (low + high) / 2
        if quality_of(items, np.array([middle])).mean() < mean_quality:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def pair_thresholds(items: Items, abilities: npt.NDArray[np.float64], link: Link) -> dict[str, Any]:
    """Threshold and threshold table of a strong and a weak model, from the traffic that the bundle describes.

    Args:
        items: float64 (k, 2).
        abilities: float64 (2,), of strong and weak.
        link: how a win rate follows from two qualities.

    Returns:
        The fields `threshold` and `threshold_table` of a manifest.
    """
    quality = quality_of(items, abilities).astype(np.float32)
    table = threshold_table(win_rate(quality[:, 0], quality[:, 1], link))
    return {
        "threshold": next(value for share, value in table if share >= STRONG_SHARE),
        "threshold_table": tuple(table),
    }


def place(
    general: Mapping[str, Any],
    names: Sequence[str],
    strong: str | None,
    weak: str | None,
    ability: Mapping[str, float],
    kept: Mapping[str, Placement],
) -> list[Placement]:
    """Place models.

    Args:
        general: the field of that name in the manifest.
        names: the models.
        strong: the strong model, if it is known which one it is.
        weak: the weak model, if it is known which one it is.
        ability: of some of the models, a mean score on the user's traffic from 0 to 1, or an arena rating.
        kept: where some of the other models were placed earlier, which holds.

    Raises:
        InputError: `ability` names another model or holds something else, or a model that is neither strong nor weak is
            in no table and has no ability.
    """
    unknown = sorted(set(ability) - set(names))
    if unknown:
        raise InputError(f"ability names {unknown}; expected models among {list(names)}")
    known = {
        name: kept[name] if name in kept and name not in ability else _known(general, name, ability) for name in names
    }
    gap = general["strong"] - general["weak"]
    placements = []
    for name in names:
        found = known[name]
        if found is None and name == strong:
            other = known.get(weak or "")
            found = Placement(name, max(general["strong"], other.ability + gap if other else -np.inf), "tier")
        elif found is None and name == weak:
            other = known.get(strong or "")
            found = Placement(name, min(general["weak"], other.ability - gap if other else np.inf), "tier")
        if found is None:
            raise InputError(
                f"{name!r} is not in the table of abilities; expected ability={{{name!r}: its mean score on your "
                f"queries, from 0 to 1, or its arena rating}}, or one of {_near(general, name)}"
            )
        placements.append(found)
    return placements


def ability_in(table: Mapping[str, float], name: str) -> float | None:
    """The ability of a model by a table of abilities, in any spelling of its name; None: it is not there."""
    return next((table[key] for key in (name, canonical_name(name)) if key in table), None)


def _known(general: Mapping[str, Any], name: str, ability: Mapping[str, float]) -> Placement | None:
    """The placement of a model that does not depend on its role; None: there is none."""
    if name in ability:
        value = ability[name]
        check_number(f"ability[{name!r}]", value, "a mean score above 0 and below 1, or an arena rating")
        if 0 < value < 1:
            return Placement(name, ability_at(np.asarray(general["items"], np.float64), value), "score")
        rating = general.get("rating")
        if value < LEAST_RATING or rating is None:
            kinds = "a mean score above 0 and below 1" + (", or an arena rating from 100" if rating else "")
            raise InputError(f"ability[{name!r}] is {value}; expected {kinds}")
        return Placement(name, (value - rating["origin"]) / rating["points"], "rating")
    found = ability_in(general["abilities"], name)
    return None if found is None else Placement(name, found, "table")


def _near(general: Mapping[str, Any], name: str) -> list[str]:
    """Some names of the table that look like the given one."""
    from difflib import get_close_matches

    return get_close_matches(canonical_name(name), list(general["abilities"]), n=5, cutoff=0.3)
