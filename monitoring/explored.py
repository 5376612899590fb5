"""What always-strong would have cost, measured by the calls whose model was drawn at random.

The estimate is doubly robust (Dudik, Langford and Li 2011). Each drawn call counts with what it is expected to cost at
the strong model; where strong was drawn with probability p and answered, the difference of what it cost to what was
expected counts as well, divided by p:

    expected + [strong answered] * (measured - expected) / p

The expected cost is that of the input tokens, and of the mean output of strong over the drawn calls, each of which
weighs 1 / p. With this mean the differences sum to 0, and the estimate is the regression estimator of survey sampling
(Saerndal, Swensson and Wretman 1992, 6.4), with its variance. Requests of a session that keeps a drawn model follow the
draw, and count as one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from .limits import normal_limit

#: Fewer draws of strong against the router's choice give no interval: it would be too narrow.
LEAST_DRAWS = 30
#: A smaller probability weighs as this one: nobody draws so rarely, and the sums stay finite.
_LEAST_PROPENSITY = 1e-9


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
class Explored:
    """Sums over the drawn calls; the owner guards it with a lock.

    Attributes:
        draws: draws of strong against the router's choice that strong answered.
    """

    draws: int = 0
    _input_usd: float = 0.0  # of all calls
    _unit: float = 0.0  # of all calls
    _weighted_usd: float = 0.0  # of strong's outputs
    _weighted_unit: float = 0.0
    _against_usd: float = 0.0  # of strong's outputs, where the router would have chosen another model
    _against_unit: float = 0.0
    # Sums of products of a draw's USD and unit: with them, the squares of the residuals are known for any mean.
    _squares: list[float] = field(default_factory=lambda: [0.0] * 3)
    _fourths: list[float] = field(default_factory=lambda: [0.0] * 5)

    def add(self, draw: Draw, strong: str, *, input_usd: float, output_price: float, measured: float | None) -> None:
        """Take in one call that follows a draw.

        Args:
            draw: the draw.
            strong: name of the strong model.
            input_usd: USD of the call's input tokens at strong, as always-strong would have paid them.
            output_price: USD of a million output tokens of strong.
            measured: USD of the call as always-strong would have paid them; None: strong did not answer.
        """
        unit = output_price / 1e6
        self._input_usd += input_usd
        self._unit += unit
        if draw.model != strong or measured is None or not unit:
            return
        usd, against = measured - input_usd, draw.propensity <= 0.5
        self.draws += against and not draw.unit
        self._count(draw, -1)
        draw.usd += usd
        draw.unit += unit
        self._count(draw, 1)
        propensity = max(draw.propensity, _LEAST_PROPENSITY)
        self._weighted_usd += usd / propensity
        self._weighted_unit += unit / propensity
        self._against_usd += usd * against
        self._against_unit += unit * against

    @property
    def usd(self) -> float:
        """Estimated USD of always-strong on the drawn calls."""
        return self._input_usd + self._unit * self._mean

    def drawn_output(self) -> float | None:
        """Mean output tokens of strong where it was drawn against the router's choice; None: in too few draws."""
        return self._against_usd / self._against_unit if self.draws >= LEAST_DRAWS else None

    def beyond(self, confidence: float) -> tuple[float, float]:
        """How far the interval reaches below and above the estimate, in USD.

        The width is by Student's t with the degrees of freedom that the variance has. Lengths of answers are skewed, so
        the interval is that of the logarithm of the outputs' cost.
        """
        square, fourth = (
            max(0.0, sum(math.comb(len(sums) - 1, n) * one * (-self._mean) ** n for n, one in enumerate(sums)))
            for sums in (self._squares, self._fourths)
        )
        output_usd = self._unit * self._mean
        if not square or not fourth or self.draws < 2 or not output_usd > 0:
            return 0.0, 0.0
        # The mean is that of the same draws, which makes the residuals too small: as if each draw was left out of it.
        error = math.sqrt(square) * self.draws / (self.draws - 1) * self._unit / self._weighted_unit
        degrees = max(3.0, 2 * square**2 / fourth)
        ratio = math.exp(min(_student(normal_limit(1 - confidence), degrees) * error / output_usd, 50.0))
        return output_usd * (1 - 1 / ratio), output_usd * (ratio - 1)

    @property
    def _mean(self) -> float:
        """Mean output tokens of strong; 0: strong answered no drawn call."""
        return self._weighted_usd / self._weighted_unit if self._weighted_unit else 0.0

    def _count(self, draw: Draw, sign: int) -> None:
        weight = (1 - draw.propensity) / max(draw.propensity, _LEAST_PROPENSITY) ** 2
        for sums, factor in ((self._squares, weight), (self._fourths, weight**2)):
            most = len(sums) - 1
            for n in range(most + 1):
                sums[n] += sign * factor * draw.usd ** (most - n) * draw.unit**n


def _student(z: float, degrees: float) -> float:
    """Student's t at the probability of a normal limit (Cornish-Fisher; Abramowitz and Stegun 1964, 26.7.5)."""
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / degrees ** (power + 1) for power, term in enumerate(terms))
