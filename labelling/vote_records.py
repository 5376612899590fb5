"""What the votes of a journal say: the records, who won, and how often the labeller votes the same again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..data.records import PreferenceRecord
from ..monitoring.limits import wilson

#: Ends the key of the second vote on a pair.
AGAIN = ":again"
#: The lines of a journal, by key.
Entries = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class VoteSummary:
    """What the votes of an output say.

    Attributes:
        votes: number of pairs with a vote.
        wins: number of pairs that each model won.
        ties: number of pairs with a tie.
        both_bad: those of the ties where both answers are bad.
        skipped: number of pairs that were skipped.
        left: number of pairs where the left answer won.
        repeats: number of pairs with two votes.
        agreed: those of them with the same vote twice.

    Example:
        >>> from routelearn.labelling import VoteSummary
        >>> wins = {"sim-max": 120, "sim-small": 50}
        >>> found = VoteSummary(votes=200, wins=wins, ties=30, both_bad=4, skipped=0, left=88, repeats=20, agreed=18)
        >>> [round(share, 2) for share in found.agreement]
        [0.7, 0.97]
    """

    votes: int
    wins: Mapping[str, int]
    ties: int
    both_bad: int
    skipped: int
    left: int
    repeats: int
    agreed: int

    @property
    def agreement(self) -> tuple[float, float] | None:
        """95 % interval (Wilson) of the share of the same votes; None: no pair has two votes."""
        return wilson(self.agreed, self.repeats) if self.repeats else None


def records_of(entries: Entries) -> list[PreferenceRecord]:
    """A record for each pair with a vote. A second vote makes no record."""
    found = []
    for entry in _first_votes(entries).values():
        record = dict(entry["record"])
        query = record.pop("query")
        best = _best(entry)
        preference = 0.5 if best is None else float(best == record["model_a"])
        found.append(
            PreferenceRecord(query if isinstance(query, str) else tuple(query), preference=preference, **record)
        )
    return found


def summary_of(entries: Entries) -> VoteSummary:
    """What the votes say."""
    first = _first_votes(entries)
    twice = [(first[key], entries[key + AGAIN]) for key in first if _is_vote(entries.get(key + AGAIN))]
    best = [_best(entry) for entry in first.values()]
    models = sorted({entry[side] for entry in first.values() for side in ("left", "right")})
    choices = [entry["choice"] for entry in first.values()]
    return VoteSummary(
        votes=len(first),
        wins={model: best.count(model) for model in models},
        ties=best.count(None),
        both_bad=choices.count("both-bad"),
        skipped=sum(entry["choice"] == "skip" for key, entry in entries.items() if not key.endswith(AGAIN)),
        left=choices.count("left"),
        repeats=len(twice),
        agreed=sum(_best(one) == _best(other) for one, other in twice),
    )


def _first_votes(entries: Entries) -> dict[str, Mapping[str, Any]]:
    return {key: entry for key, entry in entries.items() if _is_vote(entry) and not key.endswith(AGAIN)}


def _is_vote(entry: Mapping[str, Any] | None) -> bool:
    return entry is not None and entry["choice"] not in {"skip", "undone"}


def _best(entry: Mapping[str, Any]) -> str | None:
    """The model that a vote prefers; None: neither."""
    return entry[entry["choice"]] if entry["choice"] in {"left", "right"} else None
