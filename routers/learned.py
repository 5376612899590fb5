"""Runs any exported router bundle: one class, the graph is the difference."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np

from .assessment import Assessment
from .base import Link, Router, win_rate
from .bundle import MODEL as MODEL_FILE
from .bundle import TOKENIZER, VERIFIER, Manifest, read_bundle
from .checks import check_path, check_whole
from .decision import Context, Floats
from .errors import BundleCorruptError, GoldenScoreError, InferenceError, InputError, MissingExtraError
from .golden import check_golden, golden_ids_match
from .query import Query, query_list
from .session import Session
from .tokenizer import HuggingFaceBackend, TokenizerBackend, TokieBackend, encode
from .tokenizer_check import check_tokenizer

logger = logging.getLogger(__name__)

#: What a score needs of a graph's outputs.
QUALITY = ["quality"]

TokenizerName = Literal["auto", "tokie", "tokenizers"]


class LearnedRouter(Router):
    """A router that runs an exported bundle. `load` makes one; threads may share it.

    Attributes:
        manifest: the content of router.json.

    Example:
        >>> import routelearn
        >>> router = routelearn.load("router/")
        >>> router.strong, router.weak, len(router.models)
        ('sim-max', 'sim-small', 4)
    """

    def __init__(self, manifest: Manifest, session: Session) -> None:
        """Wrap a verified manifest and a loaded session."""
        link: Link = "bradley-terry" if manifest.link == "bradley-terry" else "difference"
        super().__init__(
            manifest.pool,
            manifest.strong,
            manifest.weak,
            link=link,
            threshold=manifest.threshold,
            threshold_table=manifest.threshold_table,
        )
        self.manifest = manifest
        self.novelty_bound = manifest.novelty_bound
        self.guarantee = manifest.guarantee
        self.reference = manifest.reference
        self._session = session
        self._pair = (self.index(self.strong), self.index(self.weak))
        self._read = manifest.truncation.read
        self._max_characters = manifest.truncation.max_characters

    @property
    def tokenizer(self) -> str:
        """Name of the tokenizer back end in use."""
        return self._session.backend.name

    def quality(self, queries: Sequence[Query]) -> Floats:
        if type(queries) is not list:
            queries = query_list(queries)
        if len(queries) == 1:  # the hot path of a service
            text, _ = self._read(queries[0])
            return self._session.run_one(text, QUALITY)[0][0]
        return self._session.run(self._texts(queries)[0], QUALITY)[0]["quality"]

    def score(self, queries: Sequence[Query]) -> Floats:
        """Predict the win rate of strong over weak; a single query takes the shortest path to the graph."""
        if type(queries) is not list:
            queries = query_list(queries)
        if len(queries) != 1:
            return super().score(queries)
        query = queries[0]
        if type(query) is not str or len(query) > self._max_characters:
            query = self._read(query).text
        quality = self._session.run_one(query, QUALITY)[0][0][0]
        strong, weak = self._pair
        return np.array([win_rate(quality[strong], quality[weak], self.link)], np.float32)

    def assess(self, queries: Sequence[Query], contexts: Sequence[Context] | None = None) -> Assessment:
        """Predict the qualities, with truncation, and with novelty and vectors if the bundle measures them."""
        del contexts
        if type(queries) is not list:
            queries = query_list(queries)
        if len(queries) == 1:
            text, cut_characters = self._read(queries[0])
            results, cut_tokens = self._session.run_one(text)
            found = dict(zip(self._session.outputs, results, strict=True))
            truncated_row = np.array([cut_characters or cut_tokens])
            return Assessment(found["quality"], truncated_row, found.get("novelty"), vectors=found.get("vector"))
        texts, cut = self._texts(queries)
        outputs, truncated_rows = self._session.run(texts)
        truncated_rows[cut] = True
        return Assessment(outputs["quality"], truncated_rows, outputs.get("novelty"), vectors=outputs.get("vector"))

    def _texts(self, queries: Sequence[Query]) -> tuple[list[str], list[int]]:
        """The texts that the graph reads, and the rows of those that exceeded the budget of characters."""
        # The hot path of batch scoring.
        if set(map(type, queries)) == {str} and max(map(len, queries)) <= self._max_characters:
            return cast("list[str]", list(queries)), []
        read = [self._read(query) for query in queries]
        return [text for text, _ in read], [row for row, (_, truncated) in enumerate(read) if truncated]


def load(
    path: str | Path, *, threads: int | None = None, tokenizer: TokenizerName = "auto", follow_links: bool = False
) -> LearnedRouter:
    """Load an exported router: verify every hash, load the graph, repeat the golden queries.

    A process that is forked later scores as well: it starts threads of its own.

    Args:
        path: a bundle folder.
        threads: batches in flight at once; None for every CPU of this process.
        tokenizer: "auto" prefers tokie when it is installed and gives the golden ids, else `tokenizers`.
        follow_links: the bundle's files may be symbolic links, as in the Hub's cache.

    Raises:
        InputError: the bundle is a verifier's, or an argument is not as described.
        BundleMissingError: the folder, or a file of it, is not there.
        BundleVersionError: written in another format version.
        BundleCorruptError: a file is not what was exported.
        GoldenScoreError: the graph gives other scores here than at export.
        MissingExtraError: tokie was asked for and is not installed.
    """
    check_path("path", path)
    if threads is not None:
        check_whole("threads", threads, 1)
    if tokenizer not in get_args(TokenizerName):
        raise InputError(f"tokenizer is {tokenizer!r:.80}; expected one of {list(get_args(TokenizerName))}")
    manifest, contents = read_bundle(path, follow_links=follow_links)
    if manifest.kind == VERIFIER:
        raise InputError(f"{path} is a verifier, not a router; load it with routelearn.load_verifier")
    backend = _choose_tokenizer(manifest, contents[TOKENIZER], tokenizer)
    session = Session(
        contents[MODEL_FILE],
        backend,
        manifest.truncation.max_tokens,
        last_tokens=manifest.truncation.last_tokens,
        distinct=manifest.truncation.distinct,
        threads=threads,
    )
    router = LearnedRouter(manifest, session)
    check_golden(
        lambda: router.assess([item.query for item in manifest.golden]).quality,  # every output is computed
        [item.quality for item in manifest.golden],
        tolerance=manifest.golden_tolerance,
        name="qualities",
        where=path,
    )
    return router


def _choose_tokenizer(manifest: Manifest, tokenizer_json: bytes, wanted: TokenizerName) -> TokenizerBackend:
    check_tokenizer(tokenizer_json)
    special_tokens = manifest.truncation.special_tokens
    if wanted != "tokenizers":
        try:
            fast = TokieBackend(tokenizer_json, special_tokens)
            if _golden_ids_match(fast, manifest):
                return fast
            logger.info("tokie does not reproduce the golden ids of this bundle; using tokenizers")
        except ModuleNotFoundError as error:
            if wanted == "tokie":
                raise MissingExtraError("tokie is not installed: pip install 'routelearn[fast]'") from error
        except Exception as error:  # noqa: BLE001 - tokie is optional speed: whatever it raises, the reference answers
            logger.info("tokie cannot read this tokenizer (%s); using tokenizers", error)
    reference = HuggingFaceBackend(tokenizer_json, special_tokens)
    if not _golden_ids_match(reference, manifest):
        raise GoldenScoreError("the tokenizer gives the golden queries other token ids than at export")
    return reference


def _golden_ids_match(backend: TokenizerBackend, manifest: Manifest) -> bool:
    texts = [manifest.truncation.read(golden.query).text for golden in manifest.golden]
    try:
        ids, lengths = encode(backend, texts)
    except InferenceError as error:
        raise BundleCorruptError(f"tokenizer.json fails on the golden queries: {error}") from error
    return golden_ids_match(np.split(ids, np.cumsum(lengths)[:-1]), manifest.golden)


def manifest_of(router: Router) -> Manifest | None:
    """The manifest of the bundle that a router answers from; None: rules alone, or a router of several bundles."""
    return router.learned.manifest if isinstance(router.learned, LearnedRouter) else None


def describe(path: str | Path) -> dict[str, Any]:
    """What a bundle says of itself, as plain data: `Manifest` without the golden queries; of its reference, the sizes.

    Raises:
        BundleError: see `read_bundle`.
        InputError: its reference is none.
    """
    manifest, contents = read_bundle(path)
    sizes = {name: len(data) for name, data in contents.items()}
    return {
        "path": str(path),
        "kind": manifest.kind,
        "format_version": manifest.format_version,
        "bytes": sizes,
        "models": [model.name for model in manifest.pool],
        "strong": manifest.strong,
        "weak": manifest.weak,
        "link": manifest.link,
        "threshold": manifest.threshold,
        "threshold_table": list(manifest.threshold_table),
        "novelty_bound": manifest.novelty_bound,
        "guarantee": manifest.guarantee,
        "reference": _reference_sizes(manifest),
        "calibration": dict(manifest.calibration),
        "training": dict(manifest.training),
    }


def _reference_sizes(manifest: Manifest) -> dict[str, int] | None:
    """Number of queries behind each part of the reference; None: the bundle has none."""
    if manifest.reference is None:
        return None
    parts = {name: manifest.reference.get(name) for name in ("score", "novelty", "vector")}
    return {name: part["n"] for name, part in parts.items() if part is not None}
