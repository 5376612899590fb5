"""Duplicates, splits grouped by prompt, and the leak check."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ..routers.errors import InputError, LeakError
from .records import PreferenceRecord, Record, record_key

#: Word n-grams that two prompts must share, and the share (Jaccard) that makes them near copies.
SHINGLE = 5
NEAR = 0.8
#: A shingle that this many training prompts share is a template, not evidence of a copy.
_COMMON = 200

_WORD = re.compile(r"\w+")
R = TypeVar("R", bound=Record)


def deduplicate(records: Sequence[R]) -> tuple[list[R], int]:
    """Drop records that repeat another: same normalised prompt, models, label and responses.

    Returns:
        The records kept, in their order, and how many were dropped.
    """
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
    """Partition records so that one normalised prompt never stands in two parts.

    Args:
        records: in any order; the split does not depend on it.
        fractions: share of the prompts in each part; they sum to 1.
        seed: of the shuffle.

    Raises:
        InputError: the fractions are negative or do not sum to 1.
    """
    if any(fraction < 0 for fraction in fractions) or abs(sum(fractions) - 1) > 1e-6:
        raise InputError(f"fractions are {list(fractions)}; expected numbers from 0 that sum to 1")
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
    """An evaluation prompt that stands in the training data, or nearly so.

    Attributes:
        prompt: the normalised evaluation prompt.
        similarity: Jaccard similarity of its word 5-grams with the training prompt's; 1 for a copy.
    """

    prompt: str
    similarity: float


def find_leaks(training: Iterable[Record], evaluation: Iterable[Record]) -> list[Leak]:
    """Evaluation prompts that training prompts repeat, exactly after normalising, or nearly."""
    return find_copies(map(record_key, training), map(record_key, evaluation))


def find_copies(training: Iterable[str], evaluation: Iterable[str]) -> list[Leak]:
    """`find_leaks` on normalised prompts (`record_key`)."""
    train_keys, evaluation_keys = sorted(set(training)), sorted(set(evaluation))
    exact = set(train_keys)
    shingles = [_shingles(key) for key in train_keys]
    index: dict[int, list[int]] = defaultdict(list)
    for number, found in enumerate(shingles):
        for shingle in found:
            index[shingle].append(number)
    leaks = []
    for key in evaluation_keys:
        if key in exact:
            leaks.append(Leak(key, 1.0))
            continue
        mine = _shingles(key)
        shared: Counter[int] = Counter()
        for shingle in mine:
            posting = index.get(shingle, ())
            if len(posting) <= _COMMON:
                shared.update(posting)
        for number, _ in shared.most_common(3):
            both = len(mine & shingles[number])
            similarity = both / (len(mine) + len(shingles[number]) - both)
            if similarity >= NEAR:
                leaks.append(Leak(key, similarity))
                break
    return leaks


def check_leaks(training: Iterable[Record], evaluation: Iterable[Record]) -> None:
    """Refuse an evaluation on prompts that were trained on.

    Raises:
        LeakError: names how many, and the first few.
    """
    refuse_leaks(find_leaks(training, evaluation))


def refuse_leaks(leaks: Sequence[Leak]) -> None:
    """Raise the LeakError of `check_leaks` for leaks that were found before."""
    if leaks:
        shown = "; ".join(f"{leak.prompt[:80]!r}" for leak in leaks[:3])
        raise LeakError(
            f"{len(leaks)} evaluation prompts stand in the training data ({shown}); "
            "a figure measured on them says nothing. Remove them, or split by prompt"
        )


def _shingles(key: str) -> set[int]:
    words = _WORD.findall(key)
    return {hash(tuple(words[i : i + SHINGLE])) for i in range(max(1, len(words) - SHINGLE + 1))}
