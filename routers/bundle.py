"""A bundle: one exported router or verifier, a folder that `load` reads; docs/bundle.md describes the format.

The folder holds ``router.json`` (the manifest below), ``model.onnx``, ``tokenizer.json`` and ``README.md``, of some
similarity routers ``records.json`` (nearest.py), and where the router has a companion, ``general.onnx`` and
``general_tokenizer.json``. At load every file is read once, so that the bytes that were hashed are the bytes that run.
A bundle from a stranger is refused before anything outside its folder is read: it may hold only these names, and
`bundle_files.py` opens its files.

To change the format: raise FORMAT_VERSION, keep reading the older versions in `Manifest.from_json`, and add a bundle of
the older version to the tests.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from .base import Link
from .bundle_files import read_file, read_whole, write_folder
from .decision import Model
from .errors import BundleCorruptError, BundleMissingError, BundleVersionError, InputError
from .json_size import check_size
from .manifest_check import MAX_OBJECTS, MAX_VALUES, check_fields, check_files
from .query import MAX_CHARACTERS_PER_TOKEN, Query, QueryText, query_text
from .shipped import shipped_or_path
from .tokenizer import Ids, keep_ends

FORMAT_VERSION = 5
MANIFEST = "router.json"
MODEL = "model.onnx"
TOKENIZER = "tokenizer.json"
CARD = "README.md"
#: The names of the training records, of similarity routers that were told to name them.
RECORDS = "records.json"
#: The companion: the graph of the general part of a router whose own graph reads queries by another encoder.
COMPANION, COMPANION_TOKENIZER = BESIDE = "general.onnx", "general_tokenizer.json"
#: The files of a bundle, and the most bytes that each may have. A graph is one protobuf message: 2 GiB at most.
MAX_BYTES = dict.fromkeys((MANIFEST, TOKENIZER, COMPANION_TOKENIZER), 64 << 20) | {
    **dict.fromkeys((MODEL, COMPANION), (2 << 30) - 1),
    **{CARD: 16 << 20, RECORDS: 128 << 20},
}
#: The fields that older versions lack, by the version that brought them. (`Truncation.last_tokens`, which version 2
#: lacks, has a default.)
_SINCE = {2: ("guarantee", "reference"), 4: ("general",), 5: ("companion",)}
#: The kind of bundle whose models are placed when it is loaded.
GENERAL = "general"
#: The kind of bundle that judges answers; all other kinds are routers.
VERIFIER = "verifier"


@dataclass(frozen=True)
class Truncation:
    """How much of a query is read.

    Attributes:
        max_tokens: most tokens that are kept of a query.
        last_tokens: how many of the kept tokens are the last tokens of the query. Above 0 the turns of a chat stand
            oldest first; with 0 the first tokens alone are kept, and the turns stand newest first.
        characters_per_token: before tokenizing, the text is cut to max_tokens times this many characters.
        special_tokens: the tokenizer adds its special tokens.
        distinct: attention_mask marks each distinct token of a query once, however often it stands there.

    Example:
        >>> from routelearn.routers.bundle import Truncation
        >>> Truncation(max_tokens=4, last_tokens=1).max_characters
        32
    """

    max_tokens: int = 512
    last_tokens: int = 0
    characters_per_token: int = MAX_CHARACTERS_PER_TOKEN
    special_tokens: bool = False
    distinct: bool = False

    @property
    def max_characters(self) -> int:
        """Most characters of a text that the tokenizer gets."""
        return self.max_tokens * self.characters_per_token

    def __post_init__(self) -> None:
        """Refuse more last tokens than tokens (ValueError)."""
        if not 0 <= self.last_tokens <= self.max_tokens:
            raise ValueError(f"last_tokens is {self.last_tokens}; expected 0 to {self.max_tokens}, which is max_tokens")

    def read(self, query: Query) -> QueryText:
        """The text of a query, before it is tokenized.

        Raises:
            InputError: the query is neither a string nor a list of messages.
        """
        return query_text(query, self.max_characters, both_ends=self.last_tokens > 0)

    def kept(self, ids: Ids) -> Ids:
        """The token ids that are read, out of those of a text: int32 (length,)."""
        return keep_ends(ids, self.max_tokens, self.last_tokens)


@dataclass(frozen=True)
class Golden:
    """A golden query: a load repeats it and compares.

    Attributes:
        query: a prompt, or a chat as a list of messages; of a verifier an object with `query` and `answer`.
        ids: the token ids that the query had at export.
        quality: the qualities that the query had at export, in the order of the pool.
    """

    query: Any
    ids: Sequence[int]
    quality: Sequence[float]


@dataclass(frozen=True)
class Companion:
    """How the companion of a router reads a query; its files are ``general.onnx`` and ``general_tokenizer.json``.

    Attributes:
        truncation: how much of a query it reads.
        golden_ids: the token ids that it gives each golden query, in their order.
    """

    truncation: Truncation
    golden_ids: Sequence[Sequence[int]] = ()


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The content of router.json; training fills it in step by step.

    Attributes:
        kind: the kind of router, or "verifier", for which some fields mean something else (docs/bundle.md).
        pool: the candidate models with prices, in the order of the graph's columns.
        strong: the strong model of the binary decision.
        weak: the weak model of the binary decision.
        link: how a win rate follows from two qualities, "difference" or "bradley-terry".
        truncation: how much of a query is read.
        calibration: method and parameters. They are already folded into the graph and stand here for readers.
        threshold: the default threshold on the score.
        threshold_table: (strong share, threshold) pairs on held-out queries, by rising share.
        novelty_bound: a query with a larger novelty is unlike the training queries; None: it was not measured.
        training: settings, data fingerprint, counts and metrics.
        golden: golden queries with ids and qualities.
        golden_tolerance: largest |difference| of a golden quality that still passes at load.
        files: sha256 of every other file, by name.
        guarantee: a threshold whose quality loss is bounded (`routelearn calibrate`), or None.
        reference: the drift reference: how scores, novelties and vectors of held-out queries were spread, or None.
        general: of a general router, the abilities of models and what else places them (routers/placement.py), or None.
        companion: of a router whose general part is a graph of its own, how this graph reads a query, or None.
        format_version: integer version of this format.

    Example:
        >>> from routelearn.routers.bundle import read_manifest
        >>> manifest = read_manifest("router")
        >>> manifest.kind, manifest.strong, manifest.weak
        ('matrix-factorization', 'sim-max', 'sim-small')
    """

    kind: str
    pool: Sequence[Model]
    strong: str
    weak: str
    link: Link
    truncation: Truncation
    calibration: Mapping[str, Any]
    threshold: float
    threshold_table: Sequence[tuple[float, float]]
    novelty_bound: float | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    golden: Sequence[Golden] = ()
    golden_tolerance: float = 1e-4
    files: Mapping[str, str] = field(default_factory=dict)
    guarantee: Mapping[str, Any] | None = None
    reference: Mapping[str, Any] | None = None
    general: Mapping[str, Any] | None = None
    companion: Companion | None = None
    format_version: int = FORMAT_VERSION

    @property
    def columns(self) -> tuple[int, int]:
        """The columns of the strong and of the weak model in the graph's qualities."""
        names = [model.name for model in self.pool]
        return names.index(self.strong), names.index(self.weak)

    def digest(self) -> str:
        """Sha256 of the manifest; since the manifest holds the hashes of all files, it names the bundle."""
        return hashlib.sha256(self.to_json()).hexdigest()

    def to_json(self) -> bytes:
        """The manifest with its own sha256, as UTF-8 JSON that a person can read."""
        content = asdict(self)
        content["pool"] = [model.as_dict() for model in self.pool]
        content["manifest_sha256"] = _digest(content)
        return (json.dumps(content, indent=1, ensure_ascii=False, sort_keys=True, allow_nan=False) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes, where: str) -> Manifest:
        """Read and verify a manifest.

        Args:
            data: the bytes of router.json.
            where: the bundle's path, for messages.

        Raises:
            BundleVersionError: its format version is not known here. (An older manifest is read as one of today.)
            BundleCorruptError: it is not JSON, was changed after it was written, or lacks a field.
        """
        try:
            check_size(data, MAX_OBJECTS, MAX_VALUES)
            content = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise BundleCorruptError(f"{where}/{MANIFEST} is not JSON that may be read: {error}") from error
        if not isinstance(content, dict):
            raise BundleCorruptError(f"{where}/{MANIFEST} is not a JSON object")
        version = content.get("format_version")
        if type(version) is not int:
            raise BundleCorruptError(f"{where}/{MANIFEST} has the format_version {version!r}; expected an integer")
        if not 1 <= version <= FORMAT_VERSION:
            raise BundleVersionError(
                f"{where} has format version {version}; this routelearn reads 1 to {FORMAT_VERSION}. "
                "Upgrade routelearn, or export the router again."
            )
        digest = content.pop("manifest_sha256", None)
        try:
            expected = _digest(content)
        except RecursionError as error:
            raise BundleCorruptError(f"{where}/{MANIFEST} nests too deep; expected what an export writes") from error
        if digest != expected:
            raise BundleCorruptError(f"{where}/{MANIFEST} was changed after it was written (its sha256 does not match)")
        for since, added in _SINCE.items():
            if version < since and not set(added) & set(content):
                content.update(dict.fromkeys(added))
        content["format_version"] = FORMAT_VERSION
        if set(content) != {item.name for item in fields(cls)}:
            raise BundleCorruptError(
                f"{where}/{MANIFEST} has the fields {sorted(content)}; expected those of version {version}"
            )
        try:
            check_fields(content, verifier=content["kind"] == VERIFIER)
            needed = (MODEL, TOKENIZER) if content["companion"] is None else (MODEL, TOKENIZER, *BESIDE)
            check_files(content["files"], set(needed), {CARD, RECORDS})
        except ValueError as error:
            raise BundleCorruptError(f"{where}/{MANIFEST}: {error}. Export the bundle again.") from error
        content["pool"] = tuple(Model(**model) for model in content["pool"])
        content["truncation"] = Truncation(**content["truncation"])
        content["golden"] = tuple(Golden(**golden) for golden in content["golden"])
        if content["companion"] is not None:
            truncation = Truncation(**content["companion"]["truncation"])
            content["companion"] = Companion(truncation, content["companion"]["golden_ids"])
        content["threshold_table"] = tuple((share, value) for share, value in content["threshold_table"])
        return cls(**content)


def _digest(content: Mapping[str, Any]) -> str:
    canonical = json.dumps(content, ensure_ascii=True, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def read_manifest(path: str | Path, *, follow_links: bool = False) -> Manifest:
    """The verified manifest of a bundle, without the other files; `follow_links` as in `read_bundle`.

    Raises:
        BundleMissingError: there is no such folder, or no router.json in it.
        BundleVersionError, BundleCorruptError: as `Manifest.from_json` raises them.
    """
    return read_whole(Path(shipped_or_path(path)), lambda folder: _read_manifest(folder, follow_links))


def _read_manifest(folder: Path, follow_links: bool) -> Manifest:
    if not folder.is_dir():
        raise BundleMissingError(f"no bundle at {folder}: there is no such folder")
    return Manifest.from_json(_read(folder, MANIFEST, follow_links), str(folder))


def read_bundle(path: str | Path, *, follow_links: bool = False) -> tuple[Manifest, dict[str, bytes]]:
    """The verified manifest and the verified bytes of every file it lists.

    A bundle that is replaced meanwhile (by `save_bundle`) is read whole: the older one or the newer one.

    Args:
        path: the folder, or the name of a bundle that comes with routelearn.
        follow_links: the files may be symbolic links, as in the Hub's cache. Use it only where no stranger can make
            links.

    Raises:
        BundleMissingError: the folder or a file is missing.
        BundleVersionError, BundleCorruptError: as `Manifest.from_json` raises them; or a hash differs.
    """
    return read_whole(Path(shipped_or_path(path)), lambda folder: _read_bundle(folder, follow_links))


def _read_bundle(folder: Path, follow_links: bool) -> tuple[Manifest, dict[str, bytes]]:
    manifest = _read_manifest(folder, follow_links)
    contents: dict[str, bytes] = {}
    for name, expected in manifest.files.items():
        contents[name] = _read(folder, name, follow_links)
        if hashlib.sha256(contents[name]).hexdigest() != expected:
            raise BundleCorruptError(f"{folder / name} was changed after the export (its sha256 does not match)")
    return manifest, contents


def _read(folder: Path, name: str, follow_links: bool) -> bytes:
    return read_file(folder / name, MAX_BYTES[name], follow_links=follow_links)


def save_bundle(path: str | Path, manifest: Manifest, contents: Mapping[str, bytes]) -> Path:
    """Write a bundle so that its final name never holds half of one. An older bundle of that name is replaced.

    Args:
        path: the folder to write.
        manifest: its `files` are filled in here.
        contents: the bytes of every file except router.json.

    Returns:
        The folder.

    Raises:
        InputError: as `check_replaceable` raises it.
    """
    final = Path(path)
    check_replaceable(final)
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(contents.items())}
    manifest = replace(manifest, files=hashes)
    write_folder(final, {**contents, MANIFEST: manifest.to_json()})
    return final


def check_replaceable(path: Path) -> None:
    """Refuse a path that a bundle cannot be written to: call this before the expensive work.

    Raises:
        InputError: the path exists and is neither a bundle nor an empty folder, or its parent cannot be written.
    """
    if path.exists() and (not path.is_dir() or (any(path.iterdir()) and not (path / MANIFEST).is_file())):
        raise InputError(
            f"{path} exists and is not a bundle; expected a bundle to replace, or a path that does not exist"
        )
    parent = path.absolute().parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise InputError(f"{path} cannot be written: {parent} is a file; expected a folder")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise InputError(f"{path} cannot be written: this user may not write to {parent}; expected a writable folder")
