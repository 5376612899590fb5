"""Tokenizers by somebody who means harm: panics of the Rust libraries, and texts that grow without end."""

from __future__ import annotations

import base64
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routelearn import FallbackRouter
from routelearn.routers.bundle import TOKENIZER, read_bundle, save_bundle
from routelearn.routers.errors import BundleCorruptError, BundleError, InferenceError
from routelearn.routers.loading import load
from routelearn.routers.tokenizer import HuggingFaceBackend, Ids, Lengths, encode
from routelearn.routers.tokenizer_check import check_tokenizer

BUNDLE = Path(__file__).resolve().parents[1] / "bundles" / "version-3"
CONTENT: dict[str, Any] = json.loads((BUNDLE / TOKENIZER).read_bytes())


def changed(**parts: Any) -> bytes:
    return json.dumps({**CONTENT, **parts}).encode()


def sign(folder: Path, tokenizer: bytes) -> Path:
    shutil.copytree(BUNDLE, folder)
    manifest, contents = read_bundle(folder)
    return save_bundle(folder, manifest, {**contents, TOKENIZER: tokenizer})


def added(count: int) -> list[dict[str, Any]]:
    flags = dict.fromkeys(["single_word", "lstrip", "rstrip", "normalized", "special"], False)
    return [{"id": 5000 + number, "content": f"token{number}", **flags} for number in range(count)]


def replacing(content: str, times: int = 1, **pattern: str) -> dict[str, Any]:
    one = {"type": "Replace", "pattern": pattern or {"String": "a"}, "content": content}
    return {"type": "Sequence", "normalizers": [one] * times}


#: A tokenizer that is read and then panics, or panics when it is read.
PANICS = [
    changed(normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
    changed(normalizer={"type": "Precompiled", "precompiled_charsmap": base64.b64encode(b"\xff" * 40).decode()}),
]


@pytest.mark.parametrize("tokenizer", PANICS)
def test_a_panic_at_load_is_a_typed_error_and_rules_answer(tokenizer: bytes, tmp_path: Path) -> None:
    folder = sign(tmp_path / "bundle", tokenizer)
    with pytest.raises(BundleCorruptError, match="tokenizer"):
        load(folder)
    assert FallbackRouter(folder, strong="sim-max", weak="sim-small").route("hi").source in {"rules", "default"}


class PanicException(BaseException):
    """As pyo3 has it: no `Exception`."""

    __module__ = "pyo3_runtime"


class Panicking:
    name = "panicking"

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def encode(self, texts: list[str]) -> tuple[Ids, Lengths]:
        raise self._error


@pytest.mark.parametrize("error", [PanicException("boom"), Exception("bare"), OverflowError("2**32"), MemoryError()])
def test_a_panic_at_encode_is_a_typed_error(error: BaseException) -> None:
    with pytest.raises(InferenceError, match="the tokenizer failed on 1 texts"):
        encode(Panicking(error), ["hi"])


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit()])
def test_the_end_of_the_process_is_no_failure_of_a_tokenizer(error: BaseException) -> None:
    with pytest.raises(type(error)):
        encode(Panicking(error), ["hi"])


def test_a_router_whose_tokenizer_panics_in_service_is_replaced_by_rules() -> None:
    router = load(BUNDLE)
    safe = FallbackRouter(router)
    router._session.backend = Panicking(PanicException("boom"))
    decision = safe.route("Prove it.")
    assert decision.cause == "error"
    assert [one.cause for one in safe.route_batch(["a", "b"])] == ["error"] * 2


def test_a_token_id_above_31_bits_is_a_typed_error() -> None:
    vocabulary = {**CONTENT["model"]["vocab"], "hi": (1 << 32) - 1}
    backend = HuggingFaceBackend(changed(model={**CONTENT["model"], "vocab": vocabulary}), False)
    with pytest.raises(InferenceError):
        encode(backend, ["hi"])


PROCESSOR = {
    "type": "TemplateProcessing",
    "single": [{"Sequence": {"id": "A", "type_id": 0}}] * 2000,
    "pair": [],
    "special_tokens": {},
}


@pytest.mark.parametrize(
    ("tokenizer", "why"),
    [
        (changed(normalizer=replacing("a" * 32, times=7)), "times longer"),
        (changed(normalizer={"type": "Sequence", "normalizers": [replacing("a" * 32)] * 7}), "times longer"),
        (changed(normalizer=replacing("a" * 32, times=2, Regex="a?")), "times longer"),
        (changed(normalizer=replacing("a" * 300, String="")), "times longer"),
        (changed(normalizer={"type": "Sequence", "normalizers": [{"type": "NFKC"}] * 3}), "times longer"),
        (changed(post_processor=PROCESSOR), "around a text"),
        (changed(post_processor={"type": "Sequence", "processors": [{**PROCESSOR, "single": [1] * 40}] * 2}), "around"),
        (changed(added_tokens=added(20_001)), "added tokens"),
        (b"[" * 1_000_001, "objects"),
        (b"[" * 100_000, "cannot be used"),
        (b'{"a":' * 100_000, "cannot be used"),
        (b"[" + b"0," * 2_000_001, "values"),
        (b'{"version":"1.0","normalizer":' + b"[" * 100_000, "cannot be used"),
        (b"[]", "expected a JSON object"),
        (b"\xff", "cannot be used"),
    ],
)
def test_a_tokenizer_that_takes_more_than_its_size_says_is_refused(tokenizer: bytes, why: str) -> None:
    with pytest.raises(BundleCorruptError, match=why):
        check_tokenizer(tokenizer)


BOMB = json.dumps(replacing("a" * 32, times=7))


@pytest.mark.parametrize(
    "tokenizer",
    [
        f'{{"model":{{"vocab":{{"a":1}}}},"normalizer":{BOMB}}}',
        f'{{"version":"1.0","normalizer":null,"model":{{}},"normalizer":{BOMB}}}',
        f'{{"version":"1.0","model":{{}},"normali\\u007aer":{BOMB}}}',
        f'{{"version":"1.0","model":{{}},"\\u006eormalizer":{BOMB}}}',
        f'{{"version":"1.0","normali\\u007aer":{BOMB},"model":{{}}}}',
        f'{{"normalizer":null,"normalizer":{BOMB},"model":{{}}}}',
        f' {{ "version" : "1.0" , "normalizer" : {BOMB} , "model" : {{}} }}',
        f'{{"version":"1.0","normalizer":null,"model":{{}},"normalizer"\n:{BOMB}}}',
    ],
)
def test_a_part_is_checked_wherever_it_stands_and_however_its_name_is_spelled(tokenizer: str) -> None:
    """The vocabulary is not read when nothing behind it can be another part."""
    with pytest.raises(BundleCorruptError, match="times longer"):
        check_tokenizer(tokenizer.encode())


def test_the_limits_leave_room_for_tokenizers_as_people_have_them() -> None:
    check_tokenizer(changed(normalizer={"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Lowercase"}]}))
    check_tokenizer(changed(normalizer=replacing("▁", String=" "), added_tokens=added(5_000)))
    check_tokenizer(changed(post_processor={**PROCESSOR, "single": PROCESSOR["single"][:3]}))


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
PARTS = ["normalizer", "pre_tokenizer", "post_processor", "decoder", "model", "added_tokens", "truncation", "padding"]


@settings(max_examples=200)
@given(st.sampled_from(PARTS), anything)
def test_any_part_of_a_tokenizer_may_be_anything(part: str, value: object) -> None:
    """0 untyped errors, at load and at encode."""
    tokenizer = changed(**{part: value})
    try:
        check_tokenizer(tokenizer)
        encode(HuggingFaceBackend(tokenizer, False), ["Prove it.", ""])
    except (BundleError, InferenceError):
        return


KINDS = ["Replace", "Prepend", "Precompiled", "Strip", "NFKC", "BertNormalizer", "Split", "Metaspace", "ByteLevel"]
KINDS += ["TemplateProcessing", "RobertaProcessing", "Sequence", "Digits", "Punctuation", "UnicodeScripts", "Nmt"]


@settings(max_examples=200)
@given(st.sampled_from(PARTS[:3]), st.sampled_from(KINDS), st.dictionaries(st.text(max_size=8), anything, max_size=3))
def test_any_settings_of_a_known_part_give_a_typed_error_or_a_tokenizer(
    part: str, kind: str, options: dict[str, object]
) -> None:
    names = {"pattern": {"Regex": "("}, "content": "x", "single": [], "pair": [], "special_tokens": {}, "sep": ["a", 1]}
    tokenizer = changed(**{part: {**names, **options, "type": kind}})
    try:
        check_tokenizer(tokenizer)
        encode(HuggingFaceBackend(tokenizer, True), ["Prove it.", ""])
    except (BundleError, InferenceError):
        return


def test_a_golden_query_that_the_tokenizer_cannot_read_is_a_typed_error(tmp_path: Path) -> None:
    folder = sign(tmp_path / "bundle", changed(post_processor={**PROCESSOR, "single": [], "pair": []}))
    manifest, contents = read_bundle(folder)
    save_bundle(folder, replace(manifest, truncation=replace(manifest.truncation, special_tokens=True)), contents)
    try:
        assert np.isfinite(load(folder).score(["hi"])).all()
    except BundleError:
        return
