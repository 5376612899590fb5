"""What another policy would have achieved, from logged decisions with outcomes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..routers.errors import InputError

#: A row of the log to the model that a policy would choose, or to the probability of each model.
LoggedPolicy = Callable[[Mapping[str, Any]], str | Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class PolicyValue:
    """Mean outcome that a policy would have had.

    Attributes:
        rows: rows with an outcome.
        matched: of these, the rows whose logged model the policy may choose: where this is 0, nothing is known.
        ips: inverse propensity score estimate, unbiased (Horvitz and Thompson 1952).
        ips_error: its standard error.
        snips: self-normalised estimate: a little biased, mostly with less variance, and never outside the range of
            the outcomes (Swaminathan and Joachims 2015). Take this one when they differ and rows are few.
        snips_error: its standard error (delta method).
        effective: rows that the weights are worth: (sum w)^2 / sum w^2 (Kish 1965).
    """

    rows: int
    matched: int
    ips: float
    ips_error: float
    snips: float
    snips_error: float
    effective: float


def off_policy_value(rows: Iterable[Mapping[str, Any]], policy: LoggedPolicy) -> PolicyValue:
    """Estimate the mean outcome of a policy from what another one decided.

    Only models that the logging policy could choose (propensity above 0) are known of: a policy that was never
    random says nothing of the decisions that it did not make. Then `matched` is small, `snips` is the mean over the
    rows on which both agree, and `ips` is far too low.

    Args:
        rows: of `read_log`, with "model", "propensity" and "outcome"; those without an outcome are left out.
        policy: to be evaluated: a function of a row, such as
            ``lambda row: "strong" if row["score"] >= 0.5 else "weak"`` with the names of your models.

    Raises:
        InputError: no row has an outcome, a propensity is not in (0, 1], or the policy gives something else.
    """
    weights: list[float] = []
    outcomes: list[float] = []
    for row in rows:
        if row.get("outcome") is None:
            continue
        propensity = float(row.get("propensity") or 0.0)
        if not 0 < propensity <= 1:
            raise InputError(f"row {row.get('id')} has propensity {propensity}; expected a probability above 0")
        chosen = policy(row)
        if not isinstance(chosen, (str, Mapping)):
            raise InputError(f"the policy gave {chosen!r}; expected a model's name, or the probability of each model")
        probability = float(chosen == row["model"]) if isinstance(chosen, str) else chosen.get(row["model"], 0.0)
        weights.append(probability / propensity)
        outcomes.append(float(row["outcome"]))
    if not outcomes:
        raise InputError("no row has an outcome; write them with DecisionLog.write_outcome")
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
