"""An A/B test of two thresholds that one may look at after every outcome, and stop as soon as the answer is clear."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from ...routers.checks import check_number
from ...routers.errors import InputError

Arm = Literal["a", "b"]
Verdict = Literal["b is not worse", "b is worse", "undecided"]

#: A bet never risks more than this share of the wealth.
_LARGEST_BET = 0.5


@dataclass
class _Bet:
    """Evidence against "the expected difference is at most 0", collected by betting (arXiv 2010.09686)."""

    log_wealth: float = 0.0
    total: float = 0.0
    squares: float = 1.0

    def add(self, difference: float, largest: float) -> None:
        """Bet on a difference in [-largest, largest]; the stake depends on earlier differences alone."""
        stake = min(max(self.total / self.squares, 0.0), _LARGEST_BET / largest)
        self.log_wealth += math.log1p(stake * difference)
        self.total += difference
        self.squares += difference * difference


@dataclass
class ABTest:
    """An A/B test: is threshold B (for instance the cheaper one) as good as threshold A?

    You may look at the verdict after every outcome: it is valid at any time. Every request goes to an arm at random
    (`arm`), and the quality of its answer, in [0, 1], is reported (`add`). The test bets against two hypotheses: "B is
    worse than A by the margin or more", and "B is worse than A by no more than the margin". The wealth of each bet is
    a non-negative supermartingale under its hypothesis, so that it ever exceeds 2/delta with a probability of at most
    delta/2 (Ville 1939). A false verdict therefore has a probability of at most delta, however often one looks. Each
    outcome counts as its difference from the mean so far, which makes the bets large.

    The outcomes must be independent of each other: report one outcome for each unit that was assigned.

    Sources: Waudby-Smith and Ramdas, arXiv 2010.09686 (testing by betting); Johari et al., arXiv 1512.04922 (A/B tests
    that are always valid).

    Example:
        >>> from routelearn.evaluation import ABTest
        >>> test = ABTest(name="threshold 0.6 or 0.7")
        >>> test.arm("user 17") == test.arm("user 17")  # a unit keeps its arm
        True
        >>> for number in range(500):
        ...     arm = test.arm(f"user {number}")
        ...     verdict = test.add(arm, 0.0 if arm == "b" else 1.0)
        >>> verdict
        'b is worse'

    Attributes:
        margin: quality that B may lose and still be "not worse", in [0, 1).
        delta: largest probability of a false verdict, in (0, 1).
        share: share of the requests that go to arm B, in (0, 1).
        counts: number of outcomes of each arm.
        sums: sum of the outcomes of each arm.
        verdict: the first verdict that became clear; it stays.
        name: name of the test; tests of different names assign the same units independently.

    Raises:
        InputError: a setting is out of range.
    """

    margin: float = 0.0
    delta: float = 0.05
    share: float = 0.5
    counts: dict[Arm, int] = field(default_factory=lambda: {"a": 0, "b": 0})
    sums: dict[Arm, float] = field(default_factory=lambda: {"a": 0.0, "b": 0.0})
    verdict: Verdict = "undecided"
    name: str = ""
    _not_worse: _Bet = field(default_factory=_Bet)
    _worse: _Bet = field(default_factory=_Bet)

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        for name in ("margin", "delta", "share"):
            check_number(name, getattr(self, name), "a number between 0 and 1")
        if not 0 <= self.margin < 1 or not 0 < self.delta < 1 or not 0 < self.share < 1:
            raise InputError(
                f"margin is {self.margin}, delta is {self.delta} and share is {self.share}; expected a margin from 0 "
                "to below 1, and a delta and a share between 0 and 1"
            )

    def arm(self, unit: str) -> Arm:
        """The arm of a unit, such as a request or a user: a unit always has the same arm."""
        if not isinstance(unit, str):
            raise InputError(f"unit is {unit!r:.80}; expected a text, such as the id of a request")
        text = f"{self.name}\0{unit}" if self.name else unit
        number = int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big")
        return "b" if number < self.share * 2**64 else "a"

    def add(self, arm: Arm, outcome: float) -> Verdict:
        """Count one outcome.

        Args:
            arm: the arm that answered.
            outcome: quality of the answer, in [0, 1].

        Returns:
            The verdict after this outcome.

        Raises:
            InputError: there is no such arm, or the outcome is out of range.
        """
        if arm not in self.counts or not 0 <= outcome <= 1:
            raise InputError(
                f"arm is {arm!r} and outcome is {outcome}; expected arm a or b, and an outcome from 0 to 1"
            )
        usual = (sum(self.sums.values()) + 0.5) / (sum(self.counts.values()) + 1)
        # Weighted by the inverse probability of the arm, the expected difference is mean(b) - mean(a) for any "usual".
        weight = 1 / self.share if arm == "b" else -1 / (1 - self.share)
        difference = weight * (outcome - usual)
        largest = 1 / min(self.share, 1 - self.share)
        self._not_worse.add(difference + self.margin, largest + self.margin)
        self._worse.add(-difference - self.margin, largest + self.margin)
        self.counts[arm] += 1
        self.sums[arm] += outcome
        if self.verdict == "undecided":
            limit = math.log(2 / self.delta)
            if self._worse.log_wealth >= limit:
                self.verdict = "b is worse"
            elif self._not_worse.log_wealth >= limit:
                self.verdict = "b is not worse"
        return self.verdict

    @property
    def difference(self) -> float:
        """The mean outcome of B minus that of A so far; NaN while an arm has no outcome."""
        if not all(self.counts.values()):
            return math.nan
        return self.sums["b"] / self.counts["b"] - self.sums["a"] / self.counts["a"]

    def as_dict(self) -> dict[str, Any]:
        """The state of the test as plain data, ready for JSON; `from_dict` reads it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> ABTest:
        """A test that goes on from a saved state.

        Args:
            state: what `as_dict` gave.

        Raises:
            InputError: the state is not what `as_dict` gave.
        """
        try:
            bets = {name: _Bet(**state[name]) for name in ("_not_worse", "_worse")}
            return cls(**{**{item.name: state[item.name] for item in fields(cls)}, **bets})
        except (KeyError, TypeError) as error:
            raise InputError(f"this is not the state of an A/B test ({error}); expected what as_dict gave") from error
