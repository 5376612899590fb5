"""Runs an exported verifier: how likely is this answer to this query good enough?"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..routers.base import Floats
from ..routers.bundle import MODEL, TOKENIZER, VERIFIER, Manifest, Truncation, read_bundle
from ..routers.errors import BundleCorruptError, GoldenScoreError, InferenceError, InputError
from ..routers.query import Query, turns
from ..routers.session import Session
from ..routers.tokenizer import HuggingFaceBackend, Ids, Lengths, encode
from .answer_features import FEATURES, PRIOR, feature_rows
from .backends import Answer
from .confidence import Ask, Estimate

#: Pairs encoded at a time.
_PAIRS_PER_CHUNK = 2048


@dataclass(frozen=True)
class PairEncoder:
    """A query and an answer as one row of tokens: start, query, separator, answer, separator.

    Where both do not fit, the query (of a chat: all turns, oldest first) keeps its end, where the question stands, in
    `query_tokens` or what the answer leaves free; the answer keeps its start and its end, where its conclusion stands,
    half each.

    Attributes:
        backend: the tokenizer, which adds no special tokens.
        start: ids before the query.
        separator: ids after the query, and after the answer.
        truncation: max_tokens counts all of the row.
        query_tokens: tokens that are the query's when both are long.
    """

    backend: HuggingFaceBackend
    start: Ids
    separator: Ids
    truncation: Truncation
    query_tokens: int

    @classmethod
    def of(cls, tokenizer_json: bytes, truncation: Truncation, query_tokens: int) -> PairEncoder:
        """Take the special tokens that the tokenizer puts around an empty text.

        Raises:
            InputError: it puts none, or the budget leaves no room for an answer.
        """
        special = encode(HuggingFaceBackend(tokenizer_json, True), [""])[0]
        if len(special) < 2:
            raise InputError("the tokenizer marks no start and end of a text; expected an encoder's")
        if not 0 < query_tokens < truncation.max_tokens - 2 * len(special):
            raise InputError(f"query_tokens is {query_tokens}; expected more than 0 and less than max_tokens")
        backend = HuggingFaceBackend(tokenizer_json, False)
        return cls(backend, special[:1], special[1:], truncation, query_tokens)

    def encode(self, queries: Sequence[Query], answers: Sequence[str]) -> list[Ids]:
        """Token ids of each of n pairs."""
        limit = self.truncation.max_characters
        texts = ["\n".join(turns(query))[-limit:] for query in queries]
        texts += [
            answer if len(answer) <= limit else answer[: limit // 2] + answer[-limit // 2 :] for answer in answers
        ]
        ids, lengths = encode(self.backend, texts)
        rows = np.split(ids, np.cumsum(lengths)[:-1]) if texts else []
        return [self._join(query, answer) for query, answer in zip(rows, rows[len(queries) :], strict=False)]

    def _join(self, query: Ids, answer: Ids) -> Ids:
        room = self.truncation.max_tokens - len(self.start) - 2 * len(self.separator)
        query = query[-max(self.query_tokens, room - len(answer)) :]
        left = room - len(query)
        if len(answer) > left:
            answer = np.concatenate([answer[: left - left // 2], answer[len(answer) - left // 2 :]])
        return np.concatenate([self.start, query, self.separator, answer, self.separator])


def joined(rows: Sequence[Ids]) -> tuple[Ids, Lengths]:
    """Rows one after the other, and their lengths."""
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    return (np.concatenate(rows) if rows else np.empty(0, np.int32)), lengths


class Verifier:
    """An exported verifier; make one with `load_verifier`. Safe to share between threads.

    It is a `Confidence` of a cascade.

    Attributes:
        manifest: what router.json says: the pool holds the models whose answers it learned from, the threshold
            is the confidence below which an answer is escalated, the threshold table says at which escalation rate.
        features: names of the features it reads beside the text.
    """

    def __init__(self, manifest: Manifest, session: Session, pairs: PairEncoder) -> None:
        """Wrap a verified manifest and a loaded session."""
        self.manifest = manifest
        self.features = tuple(name for name in session.hints.get("features", "").split(",") if name)
        unknown = set(self.features) - {*FEATURES, PRIOR}
        if unknown:
            raise BundleCorruptError(f"the verifier reads features {sorted(unknown)}, which this routelearn has not")
        self._session = session
        self._pairs = pairs

    @property
    def needs_prior(self) -> bool:
        """Whether it reads the score that a router gave the query."""
        return PRIOR in self.features

    @property
    def models(self) -> tuple[str, ...]:
        """The models whose answers it learned from."""
        return tuple(model.name for model in self.manifest.pool)

    @property
    def threshold(self) -> float:
        """Confidence below it escalates, by default."""
        return self.manifest.threshold

    def threshold_for(self, escalation_rate: float) -> float:
        """The threshold that escalated this share of the held-out answers.

        Raises:
            InputError: the rate is not in [0, 1].
        """
        if not 0 <= escalation_rate <= 1:
            raise InputError(f"escalation rate is {escalation_rate}; expected a number from 0 to 1")
        rates, thresholds = zip(*self.manifest.threshold_table, strict=True)
        return float(np.interp(escalation_rate, rates, thresholds))

    def confidence(
        self, queries: Sequence[Query], answers: Sequence[str], priors: Sequence[float] | None = None
    ) -> Floats:
        """P(the answer is good enough) of n pairs: float32 (n,) in [0, 1].

        Args:
            queries: n queries.
            answers: n answers.
            priors: the router's score of each query, of a verifier that was trained with one.

        Raises:
            InputError: as many answers as queries are expected; a query is unusable; the prior is missing.
            InferenceError: the graph failed.
        """
        if len(queries) != len(answers):
            raise InputError(f"{len(queries)} queries and {len(answers)} answers; expected one answer for each query")
        features = feature_rows(self.features, answers, priors)
        parts: list[npt.NDArray[np.float32]] = [np.empty(0, np.float32)]
        for start in range(0, len(queries), _PAIRS_PER_CHUNK):
            chunk = slice(start, start + _PAIRS_PER_CHUNK)
            ids, lengths = joined(self._pairs.encode(queries[chunk], answers[chunk]))
            outputs = self._session.run_ids(ids, lengths, features[chunk] if self.features else None)
            parts.append(outputs[self._session.outputs.index("quality")][:, 0])
        return np.concatenate(parts)

    async def estimate(self, query: Query, answer: Answer, ask: Ask, prior: float | None = None) -> Estimate:
        """See `Confidence.estimate`; the graph runs in a thread, so that the event loop does not wait for it."""
        del ask
        priors = None if prior is None else [prior]
        confidence = await asyncio.to_thread(self.confidence, [query], [answer.text], priors)
        return Estimate(float(confidence[0]))


def load_verifier(path: str | Path, *, threads: int | None = None) -> Verifier:
    """Load an exported verifier: verify every hash, load the graph, repeat the golden pairs.

    Args:
        path: a bundle folder.
        threads: batches in flight at once; None for every CPU of this process.

    Raises:
        InputError: the bundle is a router's.
        BundleMissingError, BundleVersionError, BundleCorruptError, GoldenScoreError: see `routelearn.load`.
    """
    manifest, contents = read_bundle(path)
    if manifest.kind != VERIFIER:
        raise InputError(f"{path} is a {manifest.kind} router, not a verifier; load it with routelearn.load")
    truncation = manifest.truncation
    backend = HuggingFaceBackend(contents[TOKENIZER], False)
    session = Session(contents[MODEL], backend, truncation.max_tokens, threads=threads)
    try:
        pairs = PairEncoder.of(contents[TOKENIZER], truncation, int(session.hints["query_tokens"]))
    except (KeyError, ValueError) as error:
        raise BundleCorruptError(
            f"{path}: the graph does not say how to read a query and an answer: {error}"
        ) from error
    verifier = Verifier(manifest, session, pairs)
    _check_golden(verifier, pairs, path)
    return verifier


def _check_golden(verifier: Verifier, pairs: PairEncoder, path: str | Path) -> None:
    golden = verifier.manifest.golden
    if not golden:
        raise BundleCorruptError(f"{path} has no golden pairs")
    queries, answers = zip(*((item.query["query"], item.query["answer"]) for item in golden), strict=True)
    for ids, item in zip(pairs.encode(queries, answers), golden, strict=True):
        if ids.tolist() != list(item.ids):
            raise GoldenScoreError(f"{path}: the tokenizer does not give the golden ids of the export")
    priors = GOLDEN_PRIORS * len(golden) if PRIOR in verifier.features else None
    try:
        found = verifier.confidence(queries, answers, priors)
    except InferenceError as error:
        raise BundleCorruptError(f"{path}: the graph fails on its golden pairs: {error}") from error
    difference = float(np.abs(found - np.asarray([item.quality[0] for item in golden])).max())
    if not difference <= verifier.manifest.golden_tolerance:
        raise GoldenScoreError(f"{path}: golden confidences differ by {difference:.2g}")


#: The router's score of a golden query.
GOLDEN_PRIORS = [0.5]
GOLDEN_PAIRS: tuple[tuple[Query, str], ...] = (
    ("", ""),
    ("What is the capital of Australia?", "The capital of Australia is Canberra."),
    ("What is the capital of Australia?", "I'm not sure, but it might be Sydney."),
    ("How much is 12 * 12?", "12 * 12 = 144. #### 144"),
    ("How much is 12 * 12?", "I'm sorry, but as an AI I cannot calculate."),
    ("Prove that the square root of 2 is irrational. " * 40, "Suppose it is p/q in lowest terms. " * 80),
    ("用简单的话解释一下量子纠缠。", "naïve café — ﬁancé ½ 🙂 \u200f\ufeff\x00 end"),
    (
        (
            {"role": "user", "content": "Explain how a B-tree keeps its height logarithmic."},
            {"role": "assistant", "content": "Every node but the root is at least half full, so ..."},
            {"role": "user", "content": "yes, go on"},
        ),
        "so the height is at most log base t of (n + 1) / 2.",
    ),
)
