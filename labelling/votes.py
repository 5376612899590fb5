"""The votes of a person on pairs of answers: which pair comes next, undo and repeats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from ..data.records import PreferenceRecord
from ..data.writers import write_records
from ..routers.errors import InputError
from .answers import ModelAnswer
from .journal import Journal, journal_of
from .pairs import Pair, choose_pairs, draw, models_to_compare
from .vote_records import AGAIN, VoteSummary, records_of, summary_of

#: What a person can say of a pair; "skip" makes no record.
Choice = Literal["left", "right", "tie", "both-bad", "skip"]
CHOICES: tuple[Choice, ...] = ("left", "right", "tie", "both-bad", "skip")
#: A pair comes again after so many others, from the least to the most.
_LEAST_GAP, _MOST_GAP = 5, 20
_JOB = "label"
_SUFFIXES = (".jsonl", ".parquet", ".csv")


@dataclass(frozen=True, slots=True, kw_only=True)
class Showing:
    """One pair as it is shown.

    Attributes:
        number: of the vote that is expected; it grows with each vote, skip and undo.
        pair: the pair.
        swapped: model a stands on the right.
        again: the pair was voted on before.

    Example:
        >>> from routelearn.labelling import Pair, Prompt, Showing
        >>> prompt = Prompt(query="How much is 12 * 12?")
        >>> pair = Pair(prompt=prompt, model_a="sim-max", model_b="sim-small", response_a="144", response_b="124")
        >>> Showing(number=1, pair=pair, swapped=True, again=False).left
        '124'
    """

    number: int
    pair: Pair
    swapped: bool
    again: bool

    @property
    def left(self) -> str:
        """The answer on the left."""
        return self.pair.response_b if self.swapped else self.pair.response_a

    @property
    def right(self) -> str:
        """The answer on the right."""
        return self.pair.response_a if self.swapped else self.pair.response_b

    @property
    def key(self) -> str:
        """The key of the vote in the journal."""
        return self.pair.key + AGAIN if self.again else self.pair.key


class Votes:
    """The votes of one output. Each is on the disk, in ``<out>.journal``, when `vote` returns.

    Attributes:
        out: the records.
        pairs: what is compared.

    Example:
        >>> from routelearn.labelling import ModelAnswer, Prompt, Votes
        >>> prompt = Prompt(query="How much is 12 * 12?")
        >>> answers = [
        ...     ModelAnswer(prompt=prompt, model="sim-max", response="144"),
        ...     ModelAnswer(prompt=prompt, model="sim-small", response="124"),
        ... ]
        >>> with Votes(answers, "labels.jsonl", strong="sim-max", weak="sim-small") as votes:
        ...     showing = votes.showing()
        ...     votes.vote(showing.number, "left" if showing.left == "144" else "right")
        ...     votes.records()[0].preference
        True
        1.0
    """

    def __init__(
        self,
        answers: Sequence[ModelAnswer],
        out: str | Path,
        *,
        strong: str | None = None,
        weak: str | None = None,
        labeller: str = "human",
        repeat_share: float = 0.1,
        limit: int | None = None,
        seed: int = 0,
    ) -> None:
        """Open the votes of an output, or begin them, and write the records that are there.

        Args:
            answers: see `read_answers`.
            out: the records to write: .jsonl, .parquet or .csv.
            strong: the model that is compared with the weak one; None: any two models.
            weak: the other model.
            labeller: source of the records.
            repeat_share: share of the pairs that come a second time, with sides swapped.
            limit: most pairs; None: all.
            seed: of the order, the sides and the repeats.

        Raises:
            InputError: a setting is wrong, no prompt has two answers, the output is not of earlier votes, or another
                process writes to it.
        """
        self.out = Path(out)
        if self.out.suffix.lower() not in _SUFFIXES:
            raise InputError(f"{out}: expected a file that ends in .jsonl, .parquet or .csv")
        if not 0 <= repeat_share <= 1:
            raise InputError(f"repeat_share is {repeat_share}; expected a number from 0 to 1")
        models_to_compare(answers, strong, weak)
        if self.out.exists() and not journal_of(out).exists():
            raise InputError(f"{out} is there, but {journal_of(out)}, its votes, is not; choose another output")
        self._labeller, self._seed = labeller, seed
        self._journal = Journal(journal_of(out), _JOB)
        try:
            known = self._journal.entries
            self.pairs = choose_pairs(answers, strong=strong, weak=weak, seed=seed, known=known)[:limit]
            self.write()
        except BaseException:
            self._journal.close()
            raise
        self._by_key = {pair.key: pair for pair in self.pairs}
        drawn = sorted(self.pairs, key=lambda pair: draw(seed, "again", pair.key))
        self._repeated = [pair.key for pair in drawn[: round(repeat_share * len(drawn))]]
        self._first = self.number

    def __enter__(self) -> Votes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def number(self) -> int:
        """The number of the next vote, skip or undo."""
        return 1 + max((entry["number"] for entry in self._journal.entries.values()), default=0)

    @property
    def can_undo(self) -> bool:
        """Whether there is a vote on these pairs to take back."""
        return self._last() is not None

    def showing(self) -> Showing | None:
        """The pair to show; None: every pair has its votes."""
        number = self.number
        key = self._next(number)
        if key is None:
            return None
        again = key.endswith(AGAIN)
        pair = self._by_key[key.removesuffix(AGAIN)]
        swapped = draw(self._seed, "side", pair.key) < 0.5
        if again:
            swapped = self._journal.entries[pair.key]["left"] == pair.model_a
        return Showing(number=number, pair=pair, swapped=swapped, again=again)

    def vote(self, number: int, choice: Choice) -> bool:
        """Store what a person says of the pair that is shown.

        Args:
            number: that of the showing.
            choice: one of `CHOICES`.

        Returns:
            Whether it was stored; False: the showing of this number has passed, or nothing is shown.

        Raises:
            InputError: there is no such choice.
            OSError: the disk did not take it; nothing was stored.
        """
        if choice not in CHOICES:
            raise InputError(f"choice is {choice!r:.80}; expected one of {list(CHOICES)}")
        showing = self.showing()
        if showing is None or showing.number != number:
            return False
        pair = showing.pair
        models = pair.models[::-1] if showing.swapped else pair.models
        entry: dict[str, Any] = {"number": number, "choice": choice, "left": models[0], "right": models[1]}
        if not showing.again:
            query = pair.prompt.query
            entry["record"] = {
                "query": query if isinstance(query, str) else list(query),
                **{name: getattr(pair, name) for name in ("model_a", "model_b", "response_a", "response_b")},
                **{name: getattr(pair.prompt, name) for name in ("weight", "task", "split")},
                "source": self._labeller,
            }
        self._journal.add(showing.key, entry)
        return True

    def undo(self, number: int) -> bool:
        """Take the last vote or skip back; its pair is shown again. False: as for `vote`, or there is none."""
        last = self._last()
        if last is None or number != self.number:
            return False
        self._journal.add(last, {"number": number, "choice": "undone"})
        return True

    def progress(self) -> tuple[int, int]:
        """How many showings are done, and how many there are in all, repeats included."""
        pairs = [self._state(key) for key in self._by_key]
        done, left = pairs.count("done") + pairs.count("skipped"), pairs.count("open") + pairs.count("later")
        again = [self._state(key + AGAIN) for key in self._by_key]
        done += again.count("done") + again.count("skipped")
        if left or self.showing() is not None:
            left += sum(self._state(key) != "skipped" and self._state(key + AGAIN) == "open" for key in self._repeated)
        return done, done + left

    def records(self) -> list[PreferenceRecord]:
        """A record for each pair with a vote, those of earlier runs included. A second vote makes no record."""
        return records_of(self._journal.entries)

    def write(self) -> None:
        """Write the records, whole or not at all. The file is removed where every vote was undone."""
        records = self.records()
        if records:
            write_records(records, self.out)
        else:
            self.out.unlink(missing_ok=True)

    def summary(self) -> VoteSummary:
        """What the votes say, those of earlier runs included."""
        return summary_of(self._journal.entries)

    def close(self) -> None:
        """Let other processes write."""
        self._journal.close()

    def _state(self, key: str) -> Literal["open", "done", "skipped", "later"]:
        """Where a pair stands. One that was skipped in an earlier run comes later, after all others; a repeat never."""
        entry = self._journal.entries.get(key)
        if entry is None or entry["choice"] == "undone":
            return "open"
        if entry["choice"] != "skip":
            return "done"
        return "skipped" if entry["number"] >= self._first else "later"

    def _last(self) -> str | None:
        """The key of the last vote or skip on these pairs."""
        entries = self._journal.entries
        there = [key for key in entries if entries[key]["choice"] != "undone" and self._is_here(key)]
        return max(there, key=lambda key: entries[key]["number"], default=None)

    def _is_here(self, key: str) -> bool:
        return key.removesuffix(AGAIN) in self._by_key

    def _next(self, number: int) -> str | None:
        """The key of the pair to show: what was undone, a repeat whose time has come, or a pair without a vote."""
        entries = self._journal.entries
        undone = [key for key in entries if entries[key]["choice"] == "undone" and self._is_here(key)]
        for key in sorted(undone, key=lambda key: -entries[key]["number"]):
            if not key.endswith(AGAIN) or self._distance(key.removesuffix(AGAIN), number) >= 2:
                return key
        waiting = [(self._distance(key, number), key) for key in self._repeated if self._waits(key)]
        waiting.sort(reverse=True)
        for distance, key in waiting:
            if distance >= _LEAST_GAP + draw(self._seed, "gap", key) * (_MOST_GAP - _LEAST_GAP):
                return key + AGAIN
        for wanted in ("open", "later"):
            for key in self._by_key:
                if self._state(key) == wanted:
                    return key
        return next((key + AGAIN for distance, key in waiting if distance >= 2), None)

    def _waits(self, key: str) -> bool:
        return self._state(key) == "done" and self._state(key + AGAIN) == "open"

    def _distance(self, key: str, number: int) -> int:
        """How many showings ago a pair was voted on; 0: it has no vote."""
        return number - self._journal.entries[key]["number"] if self._state(key) == "done" else 0
