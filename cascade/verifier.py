"""Runs an exported verifier, which estimates how likely an answer to a query is good enough."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..routers.bundle import MODEL, TOKENIZER, VERIFIER, Manifest, Truncation, read_bundle
from ..routers.checks import check_names, check_number, check_path
from ..routers.decision import Floats
from ..routers.errors import BundleCorruptError, GoldenScoreError, InferenceError, InputError
from ..routers.golden import GOLDEN_PRIOR, check_golden, golden_ids_match
from ..routers.query import Query, query_list, turns
from ..routers.session import Session, whole_hint
from ..routers.tokenizer import HuggingFaceBackend, Ids, Lengths, encode
from ..routers.tokenizer_check import check_tokenizer
from .backends import Answer
from .confidence import PriorConfidence
from .estimates import Ask, Estimate

#: Number of pairs that are encoded at a time.
_PAIRS_PER_CHUNK = 2048

_REFUSAL = re.compile(
    r"\b(i['’]?m sorry|i am sorry|i apologi[sz]e|i can(?:['’]t|not)|(?:i am|i['’]?m) (?:not able|unable)|as an ai\b|"
    r"i do(?:n['’]t| not) have (?:access|enough|the ability)|not possible (?:to|for me)|"
    r"none of the (?:above|options)|cannot be determined)",
    re.IGNORECASE,
)
_HEDGES = re.compile(
    r"\b(might|maybe|perhaps|possibly|probably|likely|unclear|not (?:entirely )?(?:sure|certain)|it seems|"
    r"appears to|approximately|assum(?:e|ing)|however|wait|actually|on second thought|i think|i believe|i guess)\b",
    re.IGNORECASE,
)
#: Matches the end of an answer that is complete.
_END = re.compile(r"[\d.!?:;)\]}\"'`*_$>。！？”’]\s*$")

#: The features of one answer, by name: functions from the text to a number roughly between 0 and 1.
FEATURES: dict[str, Callable[[str], float]] = {
    "length": lambda answer: float(np.log1p(len(answer))) / 10,
    "refusal": lambda answer: float(_REFUSAL.search(answer) is not None),
    "hedging": lambda answer: min(len(_HEDGES.findall(answer)), 8) / 8,
    "numbers": lambda answer: float(np.log1p(len(re.findall(r"\d+", answer)))) / 6,
    "unfinished": lambda answer: float(_END.search(answer) is None),
}
#: Name of the one feature that does not come from the answer: the router's score of the query, given by the caller.
PRIOR = "prior"


def feature_rows(names: Sequence[str], answers: Sequence[str], priors: Sequence[float] | None = None) -> Floats:
    """Compute the features of n answers: float32 (n, k).

    Args:
        names: k names out of `FEATURES`, or "prior".
        answers: n answers.
        priors: the router's scores of the n queries, in [0, 1]; needed when "prior" is among the names.

    Raises:
        InputError: the priors are missing, are not n numbers, or are not in [0, 1].
    """
    columns = []
    for name in names:
        if name != PRIOR:
            columns.append(np.asarray([FEATURES[name](answer) for answer in answers], np.float32))
            continue
        if priors is None or len(priors) != len(answers):
            given = 0 if priors is None else len(priors)
            raise InputError(
                f"{given} priors for {len(answers)} answers; this verifier reads the router's score of each query: "
                "expected one prior for every answer"
            )
        column = np.asarray(priors, np.float32)
        wrong = column[~((column >= 0) & (column <= 1))]
        if wrong.size:
            raise InputError(f"a prior is {wrong[0]}; expected the router's score of the query, a number from 0 to 1")
        columns.append(column)
    return np.stack(columns, axis=1) if columns else np.zeros((len(answers), 0), np.float32)


@dataclass(frozen=True)
class PairEncoder:
    """Encodes a query and an answer as one row of tokens: start, query, separator, answer, separator.

    A chat is read with all its turns, oldest first. If the row would be too long, the query keeps its end, because
    the question stands there: `query_tokens` tokens, or more if the answer leaves room. The answer keeps its start and
    its end in equal parts, because the conclusion stands at the end.

    Attributes:
        backend: the tokenizer, set to add no special tokens.
        start: token ids before the query.
        separator: token ids after the query, and again after the answer.
        truncation: its `max_tokens` is the length of the whole row.
        query_tokens: number of tokens that the query keeps when both texts are long.
    """

    backend: HuggingFaceBackend
    start: Ids
    separator: Ids
    truncation: Truncation
    query_tokens: int

    @classmethod
    def of(cls, tokenizer_json: bytes, truncation: Truncation, query_tokens: int) -> PairEncoder:
        """Make an encoder that uses the special tokens which the tokenizer puts around an empty text.

        Raises:
            InputError: the tokenizer has no such special tokens, or `query_tokens` leaves no room for an answer.
        """
        special = encode(HuggingFaceBackend(tokenizer_json, True), [""])[0]
        if len(special) < 2:
            raise InputError(
                f"the tokenizer puts {len(special)} special tokens around a text; expected an encoder's tokenizer, "
                "which puts at least 2"
            )
        most = truncation.max_tokens - 2 * len(special) - 1
        if not 0 < query_tokens <= most:
            raise InputError(
                f"query_tokens is {query_tokens}; expected a whole number from 1 to {most}, which leaves room for "
                f"the answer in max_tokens ({truncation.max_tokens})"
            )
        backend = HuggingFaceBackend(tokenizer_json, False)
        return cls(backend, special[:1], special[1:], truncation, query_tokens)

    def encode(self, queries: Sequence[Query], answers: Sequence[str]) -> list[Ids]:
        """The token ids of n pairs: one array for each pair."""
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
    """Join n rows of token ids into one array, and return it with the lengths of the rows (n,)."""
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    return (np.concatenate(rows) if rows else np.empty(0, np.int32)), lengths


class Verifier(PriorConfidence):
    """An exported verifier, which a cascade can use as the confidence of a tier. Make one with `load_verifier`.

    A verifier is safe to share between threads.

    Attributes:
        manifest: the content of router.json. Its pool holds the models whose answers the verifier was trained on. Its
            threshold is the confidence below which an answer is escalated. Its threshold table holds pairs of
            escalation rate and threshold.
        features: names of the features that the verifier reads in addition to the text.

    Example:
        >>> from routelearn.cascade import load_verifier
        >>> verifier = load_verifier("verifier/")
        >>> confidence = verifier.confidence(["How much is 12 * 12?"], ["12 * 12 = 144"])
        >>> confidence.shape, bool(0 <= confidence[0] <= 1)
        ((1,), True)
        >>> verifier.threshold_for(0.2) <= verifier.threshold_for(0.5)
        True
    """

    def __init__(self, manifest: Manifest, session: Session, pairs: PairEncoder) -> None:
        self.manifest = manifest
        self.features = tuple(name for name in session.hints.get("features", "").split(",") if name)
        unknown = set(self.features) - {*FEATURES, PRIOR}
        if unknown:
            raise BundleCorruptError(
                f"the verifier reads the features {sorted(unknown)}; this version of routelearn knows only "
                f"{[*FEATURES, PRIOR]}"
            )
        self._session = session
        self._pairs = pairs

    @property
    def needs_prior(self) -> bool:
        """Whether the verifier was trained with a router's score, and so needs the score of each query."""
        return PRIOR in self.features

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models whose answers the verifier was trained on."""
        return tuple(model.name for model in self.manifest.pool)

    @property
    def threshold(self) -> float:
        """The default threshold: an answer with a lower confidence is escalated."""
        return self.manifest.threshold

    def threshold_for(self, escalation_rate: float) -> float:
        """The threshold that escalates this share of the held-out answers.

        Args:
            escalation_rate: the share, in [0, 1].

        Raises:
            InputError: the rate is not in [0, 1].
        """
        check_number("escalation_rate", escalation_rate, "a number from 0 to 1")
        if not 0 <= escalation_rate <= 1:
            raise InputError(f"escalation_rate is {escalation_rate}; expected a number from 0 to 1")
        rates, thresholds = zip(*self.manifest.threshold_table, strict=True)
        return float(np.interp(escalation_rate, rates, thresholds))

    def confidence(
        self, queries: Sequence[Query], answers: Sequence[str], priors: Sequence[float] | None = None
    ) -> Floats:
        """Probability that an answer is good enough, for n pairs: float32 (n,) in [0, 1].

        Args:
            queries: n queries.
            answers: n answers.
            priors: the router's score of each query, in [0, 1]; needed when `needs_prior` is True.

        Raises:
            InputError: the numbers of queries and answers differ, a query is unusable, or the priors are missing.
            InferenceError: the tokenizer or the graph failed, or the graph gave no probabilities.
        """
        queries = query_list(queries)
        check_names("answers", answers)
        if len(queries) != len(answers):
            raise InputError(f"{len(queries)} queries and {len(answers)} answers; expected one answer for each query")
        features = feature_rows(self.features, answers, priors)
        parts: list[npt.NDArray[np.float32]] = [np.empty(0, np.float32)]
        for start in range(0, len(queries), _PAIRS_PER_CHUNK):
            chunk = slice(start, start + _PAIRS_PER_CHUNK)
            ids, lengths = joined(self._pairs.encode(queries[chunk], answers[chunk]))
            outputs = self._session.run_ids(ids, lengths, features[chunk] if self.features else None)
            parts.append(outputs[self._session.outputs.index("quality")][:, 0])
        confidences = np.concatenate(parts)
        if not ((confidences >= 0) & (confidences <= 1)).all():
            raise InferenceError("the verifier gave a confidence that is no probability; expected numbers from 0 to 1")
        return confidences

    async def estimate(self, query: Query, answer: Answer, ask: Ask, prior: float | None = None) -> Estimate:
        """Estimate the confidence in one answer, as `Confidence.estimate` says.

        The graph runs in a thread, so that the event loop does not wait.
        """
        del ask
        priors = None if prior is None else [prior]
        confidence = await asyncio.to_thread(self.confidence, [query], [answer.text], priors)
        return Estimate(float(confidence[0]))


def load_verifier(path: str | Path, *, threads: int | None = None) -> Verifier:
    """Load an exported verifier: check every hash, load the graph, and compute the golden pairs again.

    Args:
        path: the bundle's folder.
        threads: number of batches that run at once. None: one for every CPU of this process.

    Raises:
        InputError: the bundle holds a router.
        BundleMissingError: the folder, or a file in it, is missing.
        BundleVersionError: the bundle has another format version.
        BundleCorruptError: a file differs from what was exported.
        GoldenScoreError: the golden pairs get other token ids or other confidences than at export.
    """
    check_path("path", path)
    manifest, contents = read_bundle(path)
    if manifest.kind != VERIFIER:
        raise InputError(f"{path} is a {manifest.kind} router, not a verifier; load it with routelearn.load")
    truncation = manifest.truncation
    check_tokenizer(contents[TOKENIZER])
    backend = HuggingFaceBackend(contents[TOKENIZER], False)
    session = Session(contents[MODEL], backend, truncation.max_tokens, threads=threads)
    query_tokens = whole_hint(session.hints, "query_tokens")
    try:
        pairs = PairEncoder.of(contents[TOKENIZER], truncation, query_tokens)
    except (ValueError, InferenceError) as error:
        raise BundleCorruptError(
            f"{path}: the graph does not say how to read a query and an answer ({error})"
        ) from error
    verifier = Verifier(manifest, session, pairs)
    _check_golden_pairs(verifier, pairs, path)
    return verifier


def _check_golden_pairs(verifier: Verifier, pairs: PairEncoder, path: str | Path) -> None:
    golden = verifier.manifest.golden
    queries = [item.query["query"] for item in golden]
    answers = [item.query["answer"] for item in golden]
    try:
        rows = pairs.encode(queries, answers)
    except InferenceError as error:
        raise BundleCorruptError(f"{path}: the tokenizer fails on the golden pairs: {error}") from error
    if not golden_ids_match(rows, golden):
        raise GoldenScoreError(f"{path}: the tokenizer gives the golden pairs other token ids than at export")
    priors = [GOLDEN_PRIOR] * len(golden) if verifier.needs_prior else None
    check_golden(
        lambda: verifier.confidence(queries, answers, priors)[:, None],
        [item.quality for item in golden],
        tolerance=verifier.manifest.golden_tolerance,
        name="confidences",
        where=path,
    )
