"""Estimates what another policy would have achieved, from logged decisions with outcomes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..routers.errors import InputError

#: A policy as a function: it takes a row of the log and gives the model to choose, or the probability of each model.
LoggedPolicy = Callable[[Mapping[str, Any]], str | Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class PolicyValue:
    """Estimates of the mean outcome of a policy.

    Attributes:
        rows: number of rows with an outcome.
        matched: number of these rows whose logged model the policy may choose. When it is 0, nothing is known.
        ips: inverse propensity score estimate, without bias (Horvitz and Thompson 1952).
        ips_error: standard error of `ips`.
        snips: self-normalised estimate (Swaminathan and Joachims 2015). It has a small bias, mostly less variance, and
            never leaves the range of the outcomes. Use it when the two estimates differ and rows are few.
        snips_error: standard error of `snips` (delta method).
        effective: effective number of rows under the weights w: (sum w)^2 / sum w^2 (Kish 1965).

    Example:
        >>> from routelearn.monitoring import off_policy_value
        >>> rows = [{"model": "sim-max", "propensity": 0.5, "outcome": 1}] * 3
        >>> rows += [{"model": "sim-small", "propensity": 0.5, "outcome": 0}] * 3
        >>> value = off_policy_value(rows, lambda row: "sim-max")
        >>> value.rows, value.matched, value.ips, value.snips
        (6, 3, 1.0, 1.0)
    """

    rows: int
    matched: int
    ips: float
    ips_error: float
    snips: float
    snips_error: float
    effective: float


def off_policy_value(rows: Iterable[Mapping[str, Any]], policy: LoggedPolicy) -> PolicyValue:
    """Estimate the mean outcome of a policy from the logged decisions of another policy.

    The log must hold decisions that were partly random (see `Explore`). A policy that was never random tells nothing
    about decisions that it did not make: `matched` is then small, `snips` is the mean over the rows on which both
    policies agree, and `ips` is far too low.

    Args:
        rows: rows from `read_log`, with "model", "propensity" and "outcome". Rows without an outcome are left out,
            and rows of shadow mode, whose outcome is of another model than the one decided for.
        policy: the policy to evaluate, as a function of a row: for example
            ``lambda row: "sim-max" if row["score"] >= 0.5 else "sim-small"`` with the names of your models.

    Raises:
        InputError: no row has an outcome, a propensity is not in (0, 1], or the policy returns neither a name nor
            probabilities.
    """
    weights: list[float] = []
    outcomes: list[float] = []
    for row in rows:
        if row.get("outcome") is None or row.get("shadow"):
            continue
        propensity = float(row.get("propensity") or 0.0)
        if not 0 < propensity <= 1:
            raise InputError(
                f"row {row.get('id')} has propensity {propensity}; expected a probability above 0, and at most 1"
            )
        chosen = policy(row)
        if not isinstance(chosen, (str, Mapping)):
            raise InputError(
                f"the policy returned {chosen!r}; expected a model's name, or the probability of each model"
            )
        probability = float(chosen == row["model"]) if isinstance(chosen, str) else chosen.get(row["model"], 0.0)
        weights.append(probability / propensity)
        outcomes.append(float(row["outcome"]))
    if not outcomes:
        raise InputError("no row has an outcome; expected at least one, see DecisionLog.write_outcome")
    weight, outcome = np.asarray(weights), np.asarray(outcomes)
    n, total = len(weight), float(weight.sum())
    ips = float((weight * outcome).mean())
    snips = float((weight * outcome).sum()) / total if total else math.nan
    spread = float((weight * outcome).std(ddof=1)) if n > 1 else math.nan
    return PolicyValue(
        rows=n,
        matched=int((weight > 0).sum()),
        ips=ips,
        ips_error=spread / math.sqrt(n),
        snips=snips,
        snips_error=math.sqrt(float(np.square(weight * (outcome - snips)).sum())) / total if total else math.nan,
        effective=total**2 / float(np.square(weight).sum()) if total else 0.0,
    )
