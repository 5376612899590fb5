"""What always-strong would have cost, measured by the calls whose model was drawn at random.

The estimate is doubly robust (Dudik, Langford and Li 2011). Each drawn call counts with what it is expected to cost at
the strong model, and where strong was drawn and answered, with the difference of what it cost to what was expected,
divided by the probability p of that draw:

    expected + [strong answered] * (measured - expected) / p

The expectation depends on the request and on earlier calls alone, never on the call itself. The sum is then without
bias however wrong the expectation is; a good one makes it precise. Requests of a session that keeps a drawn model
follow the draw, and count as one with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from .limits import normal_limit

#: Fewer draws of strong against the router's choice give no interval: it would be too narrow.
LEAST_DRAWS = 30
#: So many calls weighs what is assumed of strong's output before the first draw.
_PRIOR = 3.0


@dataclass(slots=True)
class Draw:
    """One draw of a model, and what followed it in the session.

    Attributes:
        model: the model that was drawn.
        propensity: the probability of that.
        surplus: sum of measured less expected USD, of the calls that strong answered.
        counted: strong answered one of the calls.
    """

    model: str
    propensity: float
    surplus: float = 0.0
    counted: bool = False


@dataclass(slots=True)
class _Mean:
    """A running mean of output tokens."""

    calls: float = 0.0
    tokens: float = 0.0

    def add(self, tokens: float) -> None:
        self.calls += 1
        self.tokens += tokens


@dataclass(slots=True)
class Explored:
    """Sums over the drawn calls; the owner guards it with a lock.

    Attributes:
        usd: estimated USD of always-strong on the drawn calls.
        variance: estimated variance of it.
        fourth: sum of the squared terms of the variance, which tells how many draws it rests on.
        draws: draws of strong against the router's choice that strong answered.
    """

    usd: float = 0.0
    variance: float = 0.0
    fourth: float = 0.0
    draws: int = 0
    _all: _Mean = field(default_factory=_Mean)
    #: Output tokens of strong by whether the router itself chose strong.
    _strong: dict[bool, _Mean] = field(default_factory=lambda: {False: _Mean(), True: _Mean()})

    def add(
        self,
        draw: Draw,
        strong: str,
        *,
        input_usd: float,
        output_price: float,
        output_tokens: int,
        measured: float | None,
    ) -> None:
        """Take in one call that follows a draw.

        Args:
            draw: the draw.
            strong: name of the strong model.
            input_usd: USD of the call's input tokens at strong, as always-strong would have paid them.
            output_price: USD of a million output tokens of strong.
            output_tokens: tokens that the model which answered wrote.
            measured: USD of the call as always-strong would have paid them; None: strong did not answer.
        """
        by_router = (draw.model == strong) == (draw.propensity > 0.5)
        expected = input_usd + output_price * self._expected(by_router) / 1e6
        self.usd += expected
        if draw.model == strong and measured is not None:
            self._count(draw, measured - expected)
            self._strong[by_router].add(output_tokens)
        self._all.add(output_tokens)

    def drawn_output(self, least: int) -> float | None:
        """Mean output tokens of strong where it was drawn against the router's choice; None: in less than `least`."""
        mean = self._strong[False]
        return mean.tokens / mean.calls if mean.calls >= least else None

    def half_width(self, confidence: float) -> float:
        """Half the width of the normal interval, by Student's t with the degrees of freedom of the variance."""
        if not self.variance:
            return 0.0
        degrees = max(3.0, 2 * self.variance**2 / self.fourth)
        return _student(normal_limit(1 - confidence), degrees) * math.sqrt(self.variance)

    def _expected(self, by_router: bool) -> float:
        mean, others = self._strong[by_router], self._all
        before = others.tokens / others.calls if others.calls else 0.0
        return (mean.tokens + _PRIOR * before) / (mean.calls + _PRIOR)

    def _count(self, draw: Draw, surplus: float) -> None:
        p = draw.propensity
        before = (1 - p) / p**2 * draw.surplus**2
        draw.surplus += surplus
        after = (1 - p) / p**2 * draw.surplus**2
        self.usd += surplus / p
        self.variance += after - before
        self.fourth += after**2 - before**2
        self.draws += p <= 0.5 and not draw.counted
        draw.counted = True


def _student(z: float, degrees: float) -> float:
    """Student's t at the probability of a normal limit (Cornish-Fisher; Abramowitz and Stegun 1964, 26.7.5)."""
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / degrees ** (power + 1) for power, term in enumerate(terms))
