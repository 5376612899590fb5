"""What a job will cost, before it is run: from the prompts, the prices, and the answers that are there already."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..policies.cost import query_tokens
from ..routers.query import Query
from .candidates import Candidate
from .client import ASSUMED_OUTPUT_TOKENS
from .question import Reply

#: Answers of a model from which its lengths are taken for known.
LEAST_ANSWERS = 5
#: Standard normal quantile of a 95 % interval.
_NORMAL_95 = 1.96


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The expected price of asking one model.

    Attributes:
        candidate: name of the model.
        questions: number of questions that are still to be asked.
        input_tokens: tokens that it will read, in all.
        output_tokens: tokens that it will write, in all.
        usd: expected price; None: a price is not known.
        interval: a 95 % interval of the price; None: the length of its answers is assumed, not measured.
        most_usd: the price if every answer has the greatest length that the parameters allow; None: they set no limit.
        paid_usd: USD of the answers that are there.
        basis: what the length of the answers is known from, in words.

    Example:
        >>> from routelearn.labelling import Candidate, estimate_cost
        >>> model = Candidate(name="small", input_price=1.0, output_price=2.0, expected_output_tokens=100)
        >>> estimate = estimate_cost(model, ["How much is 12 * 12?"] * 1000, {})
        >>> estimate.questions, round(estimate.usd, 3), estimate.interval
        (1000, 0.205, None)
    """

    candidate: str
    questions: int
    input_tokens: float
    output_tokens: float
    usd: float | None
    interval: tuple[float, float] | None
    most_usd: float | None
    paid_usd: float
    basis: str


def estimate_cost(candidate: Candidate, queries: Sequence[Query], answered: Mapping[int, Reply]) -> Estimate:
    """Estimate the price of the questions that have no answer yet.

    The tokens of a prompt are estimated from its characters, and corrected by what the service counted for the prompts
    that are answered. The length of an answer is linear in the logarithm of the length of its prompt, fitted to
    the answers that are there (a regression estimator, Cochran 1977, section 7).

    Args:
        candidate: the model.
        queries: all n questions.
        answered: the replies that are there, by the number of the question; errors do not count.
    """
    sizes = np.array([query_tokens(query) for query in queries], np.float64)
    known = {row: reply for row, reply in answered.items() if reply.error is None}
    left = np.array([row for row in range(len(queries)) if row not in answered], np.int64)
    paid = math.fsum(reply.cost_usd or 0.0 for reply in answered.values())
    rows = np.array(sorted(known), np.int64)
    read = np.array([known[row].input_tokens for row in rows], np.float64)
    written = np.array([known[row].output_tokens for row in rows], np.float64)
    ratio = float(read.sum() / max(sizes[rows].sum(), 1.0)) if len(rows) else 1.0
    inputs = ratio * sizes[left]
    most = candidate.most_output_tokens
    interval = None
    if len(rows) >= LEAST_ANSWERS:
        lengths, deviation = _predicted(sizes[rows], written, sizes[left])
        basis = f"{len(rows)} answers"
    else:
        assumed = candidate.expected_output_tokens or ASSUMED_OUTPUT_TOKENS
        lengths, deviation = np.full(len(left), min(assumed, most or assumed)), None
        said = "expected_output_tokens" if candidate.expected_output_tokens else "an assumption"
        basis = f"{said}: {lengths[0] if len(left) else assumed:.0f} tokens an answer"
    usd = candidate.cost(float(inputs.sum()), float(lengths.sum()))
    if deviation is not None and usd is not None:
        spread = _NORMAL_95 * deviation * (candidate.output_price or 0.0) / 1e6
        interval = (max(usd - spread, 0.0), usd + spread)
    most_usd = None if most is None else candidate.cost(float(inputs.sum()), most * len(left))
    return Estimate(
        candidate=candidate.name,
        questions=len(left),
        input_tokens=float(inputs.sum()),
        output_tokens=float(lengths.sum()),
        usd=usd,
        interval=interval,
        most_usd=most_usd,
        paid_usd=paid,
        basis=basis,
    )


def _predicted(sizes: np.ndarray, written: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, float]:
    """Expected lengths (k,) of further answers, and the standard deviation of the error of their sum."""
    n, k = len(sizes), len(wanted)
    x, y = np.log(np.maximum(sizes, 1.0)), written
    centred = x - x.mean()
    spread = float(centred @ centred)
    # Few answers, or prompts of one length, tell no slope.
    slope = float(centred @ y) / spread if n >= 20 and spread > 1e-9 else 0.0
    at = np.log(np.maximum(wanted, 1.0))
    lengths = np.maximum(y.mean() + slope * (at - x.mean()), 0.0)
    residual = y - y.mean() - slope * centred
    variance = float(residual @ residual) / max(n - 1 - (slope != 0.0), 1)
    shift = float((at - x.mean()).sum()) if slope else 0.0
    of_mean = k**2 * variance / n + (shift**2 * variance / spread if slope else 0.0)
    return lengths, math.sqrt(k * variance + of_mean)


def pilot_rows(queries: Sequence[Query], count: int, seed: int) -> list[int]:
    """Rows of a pilot: a random one from each of `count` equal strata by length, in the order of the file."""
    order = np.argsort([query_tokens(query) for query in queries], kind="stable")
    random = np.random.default_rng(seed)
    strata = np.array_split(order, min(count, len(queries)))
    return sorted(int(stratum[random.integers(len(stratum))]) for stratum in strata)
