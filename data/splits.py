"""Removes duplicates, splits records by prompt, and finds evaluation prompts that leaked into the training data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ..routers.errors import InputError, LeakError
from .near_copies import near_copies
from .records import PreferenceRecord, Record, check_records, record_key

R = TypeVar("R", bound=Record)


def deduplicate(records: Sequence[R]) -> tuple[list[R], int]:
    """Drop records that repeat an earlier one: the same normalised prompt, models, label, responses and split.

    Returns:
        The records that are kept, in their order, and the number of dropped records.

    Raises:
        InputError: these are no records.
    """
    check_records(records)
    seen: set[tuple[object, ...]] = set()
    kept: list[R] = []
    for record in records:
        identity: tuple[object, ...]
        if isinstance(record, PreferenceRecord):
            identity = (record.models, record.preference, record.response_a, record.response_b, record.split)
        else:
            identity = (record.models, record.score, record.response, record.split)
        identity = (record_key(record), *identity)
        if identity not in seen:
            seen.add(identity)
            kept.append(record)
    return kept, len(records) - len(kept)


def split_by_prompt(records: Sequence[R], fractions: Sequence[float], seed: int = 0) -> list[list[R]]:
    """Split records into parts so that no normalised prompt stands in two parts.

    Args:
        records: the records; the split does not depend on their order.
        fractions: share of the prompts in each part; the shares sum to 1.
        seed: seed of the shuffle.

    Returns:
        One list of records for each fraction.

    Raises:
        InputError: the fractions are negative or do not sum to 1.
    """
    check_records(records)
    if any(fraction < 0 for fraction in fractions) or abs(sum(fractions) - 1) > 1e-6:
        raise InputError(f"fractions are {list(fractions)}; expected numbers of 0 or more that sum to 1")
    keys = [record_key(record) for record in records]
    distinct = sorted(set(keys))
    order = np.random.default_rng(seed).permutation(len(distinct))
    edges = np.rint(np.cumsum(fractions) * len(distinct))[:-1]
    part_of = {
        distinct[index]: int(np.searchsorted(edges, place, side="right")) for place, index in enumerate(order.tolist())
    }
    parts: list[list[R]] = [[] for _ in fractions]
    for key, record in zip(keys, records, strict=True):
        parts[part_of[key]].append(record)
    return parts


@dataclass(frozen=True)
class Leak:
    """An evaluation prompt that also stands in the training data, as a copy or a near copy.

    Attributes:
        prompt: the normalised evaluation prompt.
        similarity: share of the word 5-grams of the shorter prompt that the longer holds, in [0.8, 1]; 1 for a copy.
            Text that stands in more than 20 prompts (a template, a preamble) is left out.

    Example:
        >>> from routelearn.data import PerformanceRecord, find_leaks
        >>> trained = [PerformanceRecord("What is 2 plus 2?", "sim-small", 1.0)]
        >>> [leak.similarity for leak in find_leaks(trained, trained)]
        [1.0]
    """

    prompt: str
    similarity: float


def find_leaks(training: Iterable[Record], evaluation: Iterable[Record]) -> list[Leak]:
    """The evaluation prompts that are copies or near copies of training prompts.

    Raises:
        InputError: one of the two is no collection of records.
    """
    training, evaluation = list(training), list(evaluation)
    check_records(training)
    check_records(evaluation)
    return find_copies(map(record_key, training), map(record_key, evaluation))


def find_copies(training: Iterable[str], evaluation: Iterable[str]) -> list[Leak]:
    """The same as `find_leaks`, for normalised prompts (`record_key`)."""
    train_keys, evaluation_keys = sorted(set(training)), sorted(set(evaluation))
    similarity: dict[int, float] = {}
    for _, place, value in near_copies(train_keys, evaluation_keys):
        similarity[place] = max(value, similarity.get(place, 0.0))
    return [Leak(evaluation_keys[place], value) for place, value in sorted(similarity.items())]


def check_leaks(training: Iterable[Record], evaluation: Iterable[Record]) -> None:
    """Refuse evaluation records whose prompts stand in the training data.

    Raises:
        LeakError: there are leaks; the message gives their number and the first few.
    """
    refuse_leaks(find_leaks(training, evaluation))


def refuse_leaks(leaks: Sequence[Leak]) -> None:
    """Raise the `LeakError` of `check_leaks` when there are leaks."""
    if leaks:
        shown = "; ".join(f"{leak.prompt[:80]!r}" for leak in leaks[:3])
        raise LeakError(
            f"{len(leaks)} evaluation prompts stand in the training data ({shown}); "
            "expected none, as a figure measured on them says nothing. Remove them, or split by prompt"
        )


def without_leaks(records: list[R], training: Iterable[Record], *, drop: bool) -> tuple[list[R], int]:
    """Check records for leaks and leave the leaked ones out, if so asked.

    Args:
        records: the evaluation records.
        training: the training records.
        drop: leave records with leaked prompts out, instead of raising.

    Returns:
        The records whose prompts do not stand in the training data, and the number of leaked prompts.

    Raises:
        LeakError: there are leaks, and `drop` is false.
    """
    leaks = find_leaks(training, records)
    if not drop:
        refuse_leaks(leaks)
    leaked = {leak.prompt for leak in leaks}
    return [record for record in records if record_key(record) not in leaked], len(leaked)
