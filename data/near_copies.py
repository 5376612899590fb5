"""Finds prompts that are copies or near copies of each other: the one rule for leaks.

Two prompts are near copies when most of the word 5-grams of the shorter stand in the longer. This is containment, not
equality, so a question that is wrapped in a template is found. Text that stands in many prompts (a template, a preamble
of examples, a list of options) is no evidence of a copy. It is taken out before prompts are compared, so different
questions behind one preamble are no copies.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

#: Number of words of an n-gram.
SHINGLE = 5
#: Share of the n-grams of the shorter prompt that the longer must hold.
NEAR = 0.8
#: An n-gram that stands in more distinct prompts than this belongs to a template.
COMMON = 20
#: Longest run of n-grams that one prompt has in the place of others in its copy: two neighbouring words that were
#: replaced leave such a run. A longer run is another question behind the same text.
MAX_RUN = SHINGLE + 1
#: A prompt with fewer words than this outside templates is a copy only of prompts that hold all of it ...
SHORT = 10
#: ... and this many further n-grams at most.
_SHORT_EXTRA = 4
#: A prompt with fewer words than this is a copy only of prompts with the same words.
_LEAST = 6

# A script without blanks gives one word a character. Operators are words: "2 + 2" is another question than "2 * 2".
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+|[+*/^%=<>#]|-(?=\d)")
_BASE = np.uint64(0x9E3779B97F4A7C15)
#: Bytes of the hash of a word.
_BYTES = 8

Array = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class _Words:
    """The words of n prompts, one after the other.

    Attributes:
        hashes: uint64 (words,), hash of each word; the same in every process.
        prompt: int64 (words,), the prompt that each word stands in.
    """

    hashes: Hashes
    prompt: Array

    def shingles(self) -> tuple[Hashes, Array]:
        """The hash of each n-gram within a prompt, uint64 (k,), and the place of its first word, int64 (k,)."""
        n = max(0, len(self.hashes) - SHINGLE + 1)
        mixed = np.zeros(n, np.uint64)
        for place in range(SHINGLE):
            mixed = mixed * _BASE + self.hashes[place : place + n]
        first = np.flatnonzero(self.prompt[:n] == self.prompt[len(self.prompt) - n :])
        return mixed[first], first


def near_copies(left: Sequence[str], right: Sequence[str]) -> Iterator[tuple[int, int, float]]:
    """The pairs of a left and a right prompt that are copies or near copies, and their similarity.

    Args:
        left: distinct normalised prompts (`record_key`).
        right: distinct normalised prompts; prompts that are on the left as well are paired with themselves, too.

    Yields:
        Place on the left, place on the right, and the share of the shorter prompt's 5-grams that the longer holds, in
        [0.8, 1]. The pairs are in the order of the right prompts, then of the left. The same prompts, in whatever
        order and process, give the same pairs.
    """
    keys = sorted({*left, *right})
    number = {key: place for place, key in enumerate(keys)}
    sides = [np.asarray([number[key] for key in side], np.int64) for side in (left, right)]
    place_of = [{n: place for place, n in enumerate(side.tolist())} for side in sides]
    found: dict[tuple[int, int], float] = {}
    words = _words(keys)
    own = _without_templates(words, len(keys))
    for a, b, similarity in _contained(own, len(keys), sides[0], sides[1]):
        found[a, b] = similarity
    for a, b in _whole(words, own, len(keys)):
        found.update({pair: 1.0 for pair in ((a, b), (b, a)) if pair[0] in place_of[0] and pair[1] in place_of[1]})
    found.update({(n, n): 1.0 for n in place_of[0] if n in place_of[1]})
    placed = [(place_of[1][b], place_of[0][a], similarity) for (a, b), similarity in found.items()]
    for second, first, similarity in sorted(placed):
        yield first, second, similarity


def _words(keys: Sequence[str]) -> _Words:
    vocabulary: dict[str, int] = {}
    ids: list[int] = []
    lengths = []
    for key in keys:
        words = _WORD.findall(key)
        ids += [vocabulary.setdefault(word, len(vocabulary)) for word in words]
        lengths.append(len(words))
    table = np.random.default_rng(0).integers(0, 2**64, len(vocabulary), np.uint64)
    return _Words(table[np.asarray(ids, np.int64)], np.repeat(np.arange(len(keys)), lengths))


def _prompts_with(shingles: Hashes, prompt: Array) -> tuple[Array, Array, Array]:
    """In how many prompts the n-gram of each place stands, int64 (k,); and its distinct n-grams and their prompts."""
    order = np.argsort(shingles, kind="stable")  # prompts ascend within an n-gram
    sorted_shingles, sorted_prompt = shingles[order], prompt[order]
    changes = np.ones(len(order), np.bool_)
    changes[1:] = sorted_shingles[1:] != sorted_shingles[:-1]
    distinct = np.cumsum(changes) - 1
    first = changes.copy()
    first[1:] |= sorted_prompt[1:] != sorted_prompt[:-1]
    counts = np.bincount(distinct[first], minlength=distinct[-1] + 1 if len(order) else 0)
    name = np.empty(len(order), np.int64)
    name[order] = distinct
    return counts[name], distinct[first], sorted_prompt[first]


def _without_templates(words: _Words, n: int) -> _Words:
    """The words that are in no n-gram that stands in many prompts. Both ends of a prompt count as words here."""
    # Before and after each prompt stand the marks 1 and 2, so that a template of one word is an n-gram, too.
    prompts, marks = np.arange(n), SHINGLE - 1
    prompt = np.concatenate([np.repeat(prompts, marks), words.prompt, np.repeat(prompts, marks)])
    hashes = np.concatenate([np.ones(marks * n, np.uint64), words.hashes, np.full(marks * n, 2, np.uint64)])
    order = np.argsort(prompt, kind="stable")
    marked = _Words(hashes[order], prompt[order])
    shingles, first = marked.shingles()
    often = first[_prompts_with(shingles, marked.prompt[first])[0] > COMMON]
    template = (marked.hashes == 1) | (marked.hashes == 2)
    for place in range(SHINGLE):
        template[often + place] = True
    return _Words(marked.hashes[~template], marked.prompt[~template])


def _whole(words: _Words, own: _Words, n: int) -> Iterator[tuple[int, int]]:
    """The pairs with the same words; and pairs with the same few own words of which one holds the other whole.

    The latter are prompts of which nearly all stands in many prompts, as a question does that was wrapped in many ways.
    """
    texts = _texts(words, n)
    same: dict[bytes, list[int]] = defaultdict(list)
    few: dict[bytes, list[int]] = defaultdict(list)
    for prompt, (text, rest) in enumerate(zip(texts, _texts(own, n), strict=True)):
        if text:
            same[text].append(prompt)
        if len(rest) < SHORT * _BYTES and len(text) >= _LEAST * _BYTES:
            few[rest].append(prompt)
    for group in same.values():
        yield from ((a, b) for a in group for b in group if a < b)
    for group in few.values():
        inside = {texts[prompt]: prompt for prompt in group}
        sizes = sorted({len(text) for text in inside})
        for prompt in group:
            text = texts[prompt]
            for size in sizes[: bisect_left(sizes, len(text))]:
                for start in range(0, len(text) - size + 1, _BYTES):
                    held = inside.get(text[start : start + size])
                    if held is not None:
                        yield held, prompt


def _texts(words: _Words, n: int) -> list[bytes]:
    """The hashes of the words of each prompt, as bytes."""
    edges = np.searchsorted(words.prompt, np.arange(n + 1)).tolist()
    return [words.hashes[start:end].tobytes() for start, end in pairwise(edges)]


def _contained(words: _Words, n: int, left: Array, right: Array) -> Iterator[tuple[int, int, float]]:
    """The pairs of prompts of which one holds most of the n-grams of the other."""
    shingles, first = words.shingles()
    prompt = words.prompt[first]
    count, names, holders = _prompts_with(shingles, prompt)
    shingles, prompt = shingles[count <= COMMON], prompt[count <= COMMON]
    rare = np.bincount(names, minlength=1)[names] <= COMMON
    names, holders = names[rare], holders[rare]
    sizes, lengths = np.bincount(holders, minlength=n), np.bincount(words.prompt, minlength=n)
    a, b, shared = _shared(names, holders, np.isin(np.arange(n), left), np.isin(np.arange(n), right), n)
    smaller, larger = np.minimum(sizes[a], sizes[b]), np.maximum(sizes[a], sizes[b])
    shorter = np.minimum(lengths[a], lengths[b])
    short_near = (shared == smaller) & (larger <= smaller + _SHORT_EXTRA) & (shorter >= _LEAST)
    near = np.where(shorter < SHORT, short_near, shared >= NEAR * smaller)
    edges = np.searchsorted(prompt, np.arange(n + 1)).tolist()
    for one, other, similarity in zip(
        a[near].tolist(), b[near].tolist(), (shared / smaller)[near].tolist(), strict=True
    ):
        short, long = sorted((one, other), key=lambda place: (sizes[place], place))
        texts = (shingles[edges[place] : edges[place + 1]].tolist() for place in (short, long))
        if _differs_little(*texts):
            yield one, other, similarity


def _differs_little(short: list[int], long: list[int]) -> bool:
    """Whether each stretch of n-grams that only the shorter prompt has stands in the place of a stretch as small."""
    place_of = {shingle: place for place, shingle in enumerate(long)}
    missing, last = 0, -1
    for place in [*map(place_of.get, short), len(long)]:
        if place is None:
            missing += 1
            continue
        if missing and (missing > MAX_RUN or place - last - 1 > MAX_RUN):
            return False
        missing, last = 0, place
    return True


def _shared(
    names: Array, holders: Array, is_left: npt.NDArray[np.bool_], is_right: npt.NDArray[np.bool_], n: int
) -> tuple[Array, Array, Array]:
    """The pairs of a left and a right prompt that share n-grams, and how many they share.

    Args:
        names: int64 (k,), n-grams in ascending order.
        holders: int64 (k,), the prompt that holds each.
        is_left: bool (n,), whether a prompt is on the left.
        is_right: bool (n,), whether a prompt is on the right.
        n: number of prompts.
    """
    ours, theirs = is_left[holders], is_right[holders]
    left_names, left, right_names, right = names[ours], holders[ours], names[theirs], holders[theirs]
    start, end = np.searchsorted(left_names, right_names), np.searchsorted(left_names, right_names, side="right")
    times = end - start
    # The left holders of each right n-gram, one after the other.
    place = np.arange(times.sum()) - np.repeat(np.cumsum(times) - times, times) + np.repeat(start, times)
    pairs = left[place] * n + np.repeat(right, times)
    distinct, shared = np.unique(pairs, return_counts=True)
    a, b = distinct // n, distinct % n
    other = a != b
    return a[other], b[other], shared[other]
