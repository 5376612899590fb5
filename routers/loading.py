"""Loads an exported bundle as a router: verifies it, and repeats its golden queries."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from .blended import learned_router
from .bundle import COMPANION, COMPANION_TOKENIZER, GENERAL, RECORDS, TOKENIZER, VERIFIER, Manifest, read_bundle
from .bundle import MODEL as MODEL_FILE
from .checks import check_path, check_whole
from .decision import Model
from .errors import BundleCorruptError, GoldenScoreError, InferenceError, InputError, MissingExtraError
from .general import placed_router
from .golden import check_golden, golden_ids_match
from .learned import LearnedRouter
from .session import Session
from .tokenizer import HuggingFaceBackend, TokenizerBackend, TokieBackend, encode
from .tokenizer_check import check_tokenizer

logger = logging.getLogger(__name__)

TokenizerName = Literal["auto", "tokie", "tokenizers"]


def load(
    path: str | Path,
    *,
    strong: str | None = None,
    weak: str | None = None,
    pool: Sequence[Model | str] | None = None,
    ability: Mapping[str, float] | None = None,
    threads: int | None = None,
    tokenizer: TokenizerName = "auto",
    follow_links: bool = False,
) -> LearnedRouter:
    """Load an exported router: verify every hash, load the graph, repeat the golden queries.

    A process that is forked later scores as well: it starts threads of its own.

    Args:
        path: a bundle folder, or the name of a router that comes with routelearn, such as "general".
        strong: the strong model, for a general router alone; None: the ablest of the pool, or else the bundle's.
        weak: the weak model, for a general router alone; None: the least able of the pool, or else the bundle's.
        pool: the models, with prices if known, for a general router alone; None: strong and weak.
        ability: for a general router alone, of some models the mean score on queries like yours, above 0 and below 1,
            or an arena rating. The others are placed by the table of the bundle, or by being strong or weak.
        threads: batches in flight at once; None for every CPU of this process.
        tokenizer: "auto" prefers tokie when it is installed and gives the golden ids, else `tokenizers`.
        follow_links: the bundle's files may be symbolic links, as in the Hub's cache.

    Raises:
        InputError: the bundle is a verifier's, an argument is not as described, or models are given for a router that
            has models of its own.
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
    session = _session(manifest, contents, tokenizer, threads)
    companion = _companion(manifest, contents, tokenizer, threads)
    router = learned_router(manifest, session, companion, contents.get(RECORDS))
    check_golden(
        lambda: router.assess([item.query for item in manifest.golden]).quality,  # every output is computed
        [item.quality for item in manifest.golden],
        tolerance=manifest.golden_tolerance,
        name="qualities",
        where=path,
    )
    if manifest.kind == GENERAL:
        return placed_router(manifest, session, strong=strong, weak=weak, pool=pool, ability=ability)
    refuse_models(path, manifest, {"strong": strong, "weak": weak, "pool": pool, "ability": ability})
    return router


def refuse_models(path: str | Path, manifest: Manifest, models: Mapping[str, Any]) -> None:
    """Refuse models that are given for a router that has models of its own; those that are None are not given.

    Raises:
        InputError: one is given.
    """
    given = [name for name, value in models.items() if value is not None]
    if given:
        raise InputError(
            f"{', '.join(given)}: no effect on {path}, which is a {manifest.kind} router with models of its own, "
            f"{[model.name for model in manifest.pool]}; expected a general router, such as 'general'"
        )


def _companion(
    manifest: Manifest, contents: Mapping[str, bytes], tokenizer: TokenizerName, threads: int | None
) -> Session | None:
    """The companion of a verified bundle with its tokenizer; None: it has none."""
    if manifest.companion is None:
        return None
    golden = tuple(
        replace(item, ids=ids) for item, ids in zip(manifest.golden, manifest.companion.golden_ids, strict=True)
    )
    reads = replace(manifest, truncation=manifest.companion.truncation, golden=golden)
    return _session(reads, contents, tokenizer, threads, (COMPANION, COMPANION_TOKENIZER))


def _session(
    manifest: Manifest,
    contents: Mapping[str, bytes],
    tokenizer: TokenizerName,
    threads: int | None,
    files: tuple[str, str] = (MODEL_FILE, TOKENIZER),
) -> Session:
    """A graph of a verified bundle with its tokenizer, which must read queries as the manifest says."""
    return Session(
        contents[files[0]],
        _choose_tokenizer(manifest, contents[files[1]], tokenizer, files[1]),
        manifest.truncation.max_tokens,
        last_tokens=manifest.truncation.last_tokens,
        distinct=manifest.truncation.distinct,
        threads=threads,
        file=files[0],
    )


def _choose_tokenizer(manifest: Manifest, tokenizer_json: bytes, wanted: TokenizerName, file: str) -> TokenizerBackend:
    check_tokenizer(tokenizer_json, file)
    special_tokens = manifest.truncation.special_tokens
    if wanted != "tokenizers":
        try:
            fast = TokieBackend(tokenizer_json, special_tokens)
            if _golden_ids_match(fast, manifest, file):
                return fast
            logger.info("tokie does not reproduce the golden ids of this bundle; using tokenizers")
        except ModuleNotFoundError as error:
            if wanted == "tokie":
                raise MissingExtraError("tokie is not installed: pip install 'routelearn[fast]'") from error
        except Exception as error:  # noqa: BLE001 - tokie is optional speed: whatever it raises, the reference answers
            logger.info("tokie cannot read this tokenizer (%s); using tokenizers", error)
    reference = HuggingFaceBackend(tokenizer_json, special_tokens)
    if not _golden_ids_match(reference, manifest, file):
        raise GoldenScoreError(f"{file} gives the golden queries other token ids than at export")
    return reference


def _golden_ids_match(backend: TokenizerBackend, manifest: Manifest, file: str) -> bool:
    texts = [manifest.truncation.read(golden.query).text for golden in manifest.golden]
    try:
        ids, lengths = encode(backend, texts)
    except InferenceError as error:
        raise BundleCorruptError(f"{file} fails on the golden queries: {error}") from error
    return golden_ids_match(np.split(ids, np.cumsum(lengths)[:-1]), manifest.golden)


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
