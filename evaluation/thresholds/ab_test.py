"""A/B test of two thresholds that may be looked at after every outcome, and stopped whenever it is clear."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from ...routers.errors import InputError

Arm = Literal["a", "b"]
Verdict = Literal["b is not worse", "b is worse", "undecided"]

#: No bet risks more than this share of what is there.
_LARGEST_BET = 0.5


@dataclass
class _Bet:
    """Evidence against "the expected difference is at most 0", by betting on the next ones (arXiv 2010.09686)."""

    log_wealth: float = 0.0
    total: float = 0.0
    squares: float = 1.0

    def add(self, difference: float, largest: float) -> None:
        """Bet on a difference in [-largest, largest]; the stake depends on earlier ones alone."""
        stake = min(max(self.total / self.squares, 0.0), _LARGEST_BET / largest)
        self.log_wealth += math.log1p(stake * difference)
        self.total += difference
        self.squares += difference * difference


@dataclass
class ABTest:
    """Is threshold B, the cheaper one say, as good as threshold A? Looks are free: the answer is valid at any time.

    Every request goes to an arm at random (`arm`), and its outcome, quality in [0, 1], is reported (`add`). The
    test bets against two hypotheses: "B is worse than A by the margin or more" and "by no more than the margin". The
    wealth of each bet is a non-negative supermartingale under its hypothesis, so it ever exceeds 2/delta with
    probability at most delta/2 (Ville 1939; testing by betting: Waudby-Smith and Ramdas, arXiv 2010.09686; always
    valid A/B tests: Johari et al., arXiv 1512.04922): a false verdict has probability at most delta, however often
    one looks. Outcomes count as their difference from the mean so far, which makes the bets large.

    Outcomes must be independent of each other: one for every unit that was assigned.

    Attributes:
        margin: quality that B may lose and still be "not worse", in [0, 1).
        delta: probability of a false verdict.
        share: of the requests that go to arm B, in (0, 1).
        counts: outcomes of each arm.
        sums: of the outcomes of each arm.
        verdict: the first that became clear; it stays.
        name: of the test: tests of different names assign the same units independently.
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
        if not 0 <= self.margin < 1 or not 0 < self.delta < 1 or not 0 < self.share < 1:
            raise InputError(
                f"margin {self.margin}, delta {self.delta}, share {self.share}; expected a margin from 0 to below 1, "
                "and the others between 0 and 1"
            )

    def arm(self, unit: str) -> Arm:
        """The arm of a request, a user or whatever is randomised: always the same for the same unit."""
        text = f"{self.name}\0{unit}" if self.name else unit
        number = int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big")
        return "b" if number < self.share * 2**64 else "a"

    def add(self, arm: Arm, outcome: float) -> Verdict:
        """Count one outcome.

        Args:
            arm: where it was answered.
            outcome: quality, in [0, 1].

        Returns:
            The verdict now.

        Raises:
            InputError: no such arm, or an outcome out of range.
        """
        if arm not in self.counts or not 0 <= outcome <= 1:
            raise InputError(f"arm {arm!r}, outcome {outcome}; expected arm a or b, and an outcome from 0 to 1")
        usual = (sum(self.sums.values()) + 0.5) / (sum(self.counts.values()) + 1)
        # Its expectation is mean(b) - mean(a), whatever "usual" is: weighted by the inverse probability of the arm.
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
        """Mean outcome of B less that of A so far; NaN while an arm has none."""
        if not all(self.counts.values()):
            return math.nan
        return self.sums["b"] / self.counts["b"] - self.sums["a"] / self.counts["a"]

    def as_dict(self) -> dict[str, Any]:
        """The state as plain data, ready for JSON; `from_dict` reads it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> ABTest:
        """The test of `as_dict`, to go on with.

        Raises:
            InputError: the state is not one of `as_dict`.
        """
        try:
            bets = {name: _Bet(**state[name]) for name in ("_not_worse", "_worse")}
            return cls(**{**{item.name: state[item.name] for item in fields(cls)}, **bets})
        except (KeyError, TypeError) as error:
            raise InputError(f"no state of an A/B test ({error}); expected what as_dict gave") from error
