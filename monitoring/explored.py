"""What always-strong would have cost, measured by the calls whose model was drawn at random.

The estimate is doubly robust (Dudik, Langford and Li 2011). Each drawn call counts with what it is expected to cost at
the strong model; where strong was drawn with probability p and answered, the difference of what it cost to what was
expected counts as well, divided by p:

    expected + [strong answered] * (measured - expected) / p

The expected cost is that of the input tokens, and of the mean output of strong over the drawn calls, each of which
weighs 1 / p. (One mean is of the calls that the router itself would send to strong, and one of the others.) With these
means the differences sum to 0, and the estimate is the regression estimator of survey sampling (Saerndal, Swensson and
Wretman 1992, 6.4), with its variance. Requests of a session that keeps a drawn model follow the draw, and count as one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from .limits import normal_limit

#: Fewer draws of strong against the router's choice give no interval: it would be too narrow.
LEAST_DRAWS = 30


@dataclass(slots=True)
class Draw:
    """One draw of a model, and what followed it in the session.

    Attributes:
        model: the model that was drawn.
        propensity: the probability of that.
        usd: USD of strong's outputs in the calls that it answered.
        unit: USD that these calls would have cost with one output token each.
    """

    model: str
    propensity: float
    usd: float = 0.0
    unit: float = 0.0


@dataclass(slots=True)
class _Stratum:
    """Sums over the drawn calls of one kind. Powers of a draw's USD and unit give its residual for any mean."""

    input_usd: float = 0.0  # of all calls
    unit: float = 0.0  # of all calls
    weighted_usd: float = 0.0  # of strong's outputs
    weighted_unit: float = 0.0
    draws: int = 0
    squares: list[float] = field(default_factory=lambda: [0.0] * 3)
    fourths: list[float] = field(default_factory=lambda: [0.0] * 5)

    @property
    def mean(self) -> float | None:
        """Mean output tokens of strong; None: strong answered no drawn call."""
        return self.weighted_usd / self.weighted_unit if self.weighted_unit else None

    def add(self, draw: Draw, usd: float, unit: float) -> None:
        """Add an output of strong to a draw."""
        self.draws += not draw.unit
        self._count(draw, -1)
        draw.usd += usd
        draw.unit += unit
        self._count(draw, 1)
        self.weighted_usd += usd / draw.propensity
        self.weighted_unit += unit / draw.propensity

    def _count(self, draw: Draw, sign: int) -> None:
        weight = (1 - draw.propensity) / draw.propensity**2
        for sums, factor in ((self.squares, weight), (self.fourths, weight**2)):
            most = len(sums) - 1
            for power in range(most + 1):
                sums[power] += sign * factor * draw.usd ** (most - power) * draw.unit**power

    def variance(self) -> tuple[float, float]:
        """The variance of the estimate, and the sum of the squares of its terms."""
        mean = self.mean
        if mean is None or self.draws < 2:
            return 0.0, 0.0
        square, fourth = (
            sum(math.comb(len(sums) - 1, power) * one * (-mean) ** power for power, one in enumerate(sums))
            for sums in (self.squares, self.fourths)
        )
        # The mean is that of the same draws, which makes the residuals too small: as if each draw was left out of it.
        grown = (self.draws / (self.draws - 1) * self.unit / self.weighted_unit) ** 2
        square = max(square, 0.0)
        return square * grown, max(fourth, square**2 / self.draws) * grown**2


@dataclass(slots=True)
class Explored:
    """Sums over the drawn calls; the owner guards it with a lock."""

    _strata: dict[bool, _Stratum] = field(default_factory=lambda: {False: _Stratum(), True: _Stratum()})

    def add(self, draw: Draw, strong: str, *, input_usd: float, output_price: float, measured: float | None) -> None:
        """Take in one call that follows a draw.

        Args:
            draw: the draw.
            strong: name of the strong model.
            input_usd: USD of the call's input tokens at strong, as always-strong would have paid them.
            output_price: USD of a million output tokens of strong.
            measured: USD of the call as always-strong would have paid them; None: strong did not answer.
        """
        # Whether the router itself would have chosen strong.
        stratum = self._strata[(draw.model == strong) == (draw.propensity > 0.5)]
        unit = output_price / 1e6
        stratum.input_usd += input_usd
        stratum.unit += unit
        if draw.model == strong and measured is not None and unit:
            stratum.add(draw, measured - input_usd, unit)

    @property
    def draws(self) -> int:
        """Draws of strong against the router's choice that strong answered."""
        return self._strata[False].draws

    @property
    def usd(self) -> float:
        """Estimated USD of always-strong on the drawn calls."""
        return self._output_usd + sum(stratum.input_usd for stratum in self._strata.values())

    @property
    def _output_usd(self) -> float:
        means = [stratum.mean for stratum in self._strata.values()]
        some = next((mean for mean in means if mean is not None), 0.0)
        return sum(stratum.unit * (some if stratum.mean is None else stratum.mean) for stratum in self._strata.values())

    def drawn_output(self) -> float | None:
        """Mean output tokens of strong where it was drawn against the router's choice; None: in too few draws."""
        return self._strata[False].mean if self.draws >= LEAST_DRAWS else None

    def beyond(self, confidence: float) -> tuple[float, float]:
        """How far the interval reaches below and above the estimate, in USD.

        The width is by Student's t with the degrees of freedom that the variance has. Lengths of answers are skewed, so
        the interval is that of the logarithm of the outputs' cost.
        """
        found = [stratum.variance() for stratum in self._strata.values()]
        variance, fourth = (sum(terms) for terms in zip(*found, strict=True))
        output_usd = self._output_usd
        if not variance or not fourth or not output_usd > 0:
            return 0.0, 0.0
        degrees = max(3.0, 2 * variance**2 / fourth)
        width = _student(normal_limit(1 - confidence), degrees) * math.sqrt(variance) / output_usd
        ratio = math.exp(min(width, 50.0))
        return output_usd * (1 - 1 / ratio), output_usd * (ratio - 1)


def _student(z: float, degrees: float) -> float:
    """Student's t at the probability of a normal limit (Cornish-Fisher; Abramowitz and Stegun 1964, 26.7.5)."""
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / degrees ** (power + 1) for power, term in enumerate(terms))
