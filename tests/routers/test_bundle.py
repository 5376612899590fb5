from __future__ import annotations

import json
import os
import shutil
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from conftest import tiny_config
from hypothesis import given, settings
from hypothesis import strategies as st

from routelearn.data.sample import Sample
from routelearn.routers.bundle import (
    FORMAT_VERSION,
    VERIFIER,
    Golden,
    Manifest,
    Truncation,
    check_replaceable,
    read_bundle,
    save_bundle,
)
from routelearn.routers.decision import Model
from routelearn.routers.errors import (
    BundleCorruptError,
    BundleError,
    BundleMissingError,
    BundleVersionError,
    GoldenScoreError,
    InputError,
)
from routelearn.routers.learned import LearnedRouter
from routelearn.routers.loading import load
from routelearn.training.encoders.transformer_network import OUTPUTS
from routelearn.training.matrix_factorization.train import train_matrix_factorization
from routelearn.training.similarity.config import KINDS

ROOT = Path(__file__).resolve().parents[2]
QUERIES = ["Prove it step by step.", "Translate 'library' into Dutch.", "", "Say hello to Ana."]


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / "copy"))


def rewrite(folder: Path, **changes: object) -> None:
    """Change a bundle and sign it again, as only routelearn itself would."""
    manifest, contents = read_bundle(folder)
    save_bundle(folder, replace(manifest, **changes), contents)  # type: ignore[arg-type]


def test_a_bundle_holds_four_files_and_no_pickle(bundle: Path) -> None:
    assert sorted(path.name for path in bundle.iterdir()) == [
        "README.md",
        "model.onnx",
        "router.json",
        "tokenizer.json",
    ]
    assert sum(path.stat().st_size for path in bundle.iterdir()) < 12e6


def test_any_mutated_byte_is_a_typed_error_or_an_identical_score(copy: Path) -> None:
    """200 seeded mutations of single bytes over all files, small files as often as large ones."""
    expected = load(copy).score(QUERIES)
    random = np.random.default_rng(0)
    files = sorted(copy.iterdir())
    outcomes = {"error": 0, "same": 0}
    for number in range(200):
        path = files[number % len(files)]
        original = path.read_bytes()
        position = int(random.integers(len(original)))
        mutated = bytearray(original)
        mutated[position] ^= int(random.integers(1, 256))
        path.write_bytes(mutated)
        try:
            scores = load(copy).score(QUERIES)
        except BundleError:
            outcomes["error"] += 1
        else:
            assert np.array_equal(scores, expected), f"{path.name} byte {position}"
            outcomes["same"] += 1
        path.write_bytes(original)
    assert outcomes["error"] > 150


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "README.md", "router.json"])
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(BundleMissingError, match=name):
        load(copy)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleMissingError, match="nowhere"):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_a_truncated_file_is_corrupt(copy: Path, name: str) -> None:
    data = (copy / name).read_bytes()
    (copy / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(BundleCorruptError, match=name):
        load(copy)


def test_a_newer_format_version_says_to_upgrade(copy: Path) -> None:
    rewrite(copy, format_version=FORMAT_VERSION + 1)
    with pytest.raises(BundleVersionError, match="Upgrade routelearn"):
        load(copy)


OLD_BUNDLES = ROOT / "tests" / "bundles"


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("version-1", 1),
        ("version-2", 2),
        ("version-3", 3),
        ("version-3-similarity", 3),
        ("version-4", 4),
        ("version-5", 5),
    ],
)
def test_a_bundle_of_each_format_version_scores_as_recorded_and_is_saved_as_todays(
    tmp_path: Path, name: str, version: int
) -> None:
    old = OLD_BUNDLES / name
    recorded = json.loads((OLD_BUNDLES / "scores.json").read_text())
    assert json.loads((old / "router.json").read_text())["format_version"] == version
    expected = load(old).score(QUERIES)  # its golden scores passed
    assert recorded["queries"] == QUERIES
    assert expected == pytest.approx(recorded["scores"][name], abs=1e-5)
    manifest, contents = read_bundle(old)
    assert (manifest.guarantee, manifest.truncation.last_tokens) == (None, 0)
    assert (manifest.reference is None) == (version < 3)
    assert (manifest.companion is None) == (version < 5)
    new = save_bundle(tmp_path / "new", manifest, contents)
    assert json.loads((new / "router.json").read_text())["format_version"] == FORMAT_VERSION
    assert np.array_equal(load(new).score(QUERIES), expected)


def test_every_format_version_has_a_bundle_in_the_tests() -> None:
    for version in range(1, FORMAT_VERSION + 1):
        assert (OLD_BUNDLES / f"version-{version}" / "router.json").is_file()


def test_the_documentation_names_the_format_version_the_fields_and_the_kinds_of_today() -> None:
    text = (ROOT / "docs" / "bundle.md").read_text()
    assert f"# The bundle, format version {FORMAT_VERSION}\n" in text
    assert f"| `format_version` | {FORMAT_VERSION}." in text
    documented = {
        word for line in text.splitlines() if line.startswith("| `") for word in line.split("|")[1].split("`")
    }
    assert {item.name for item in fields(Manifest)} <= documented
    truncation = next(line for line in text.splitlines() if line.startswith("| `truncation`"))
    assert {item.name for item in fields(Truncation)} <= set(truncation.split("`"))
    assert {*KINDS.values(), "matrix-factorization", "bert", VERIFIER} <= documented
    assert set(OUTPUTS) <= set(text.split("`"))


@pytest.mark.parametrize("last", [-1, 513])
def test_more_last_tokens_than_the_budget_are_refused(copy: Path, last: int) -> None:
    rewrite(copy, truncation={"max_tokens": 512, "last_tokens": last})
    with pytest.raises(BundleCorruptError, match=f"last_tokens is {last}; expected a whole number from 0 to 512"):
        load(copy)


def test_a_manifest_edited_by_hand_is_refused(copy: Path) -> None:
    path = copy / "router.json"
    content = json.loads(path.read_text())
    content["threshold"] = 0.123
    path.write_text(json.dumps(content))
    with pytest.raises(BundleCorruptError, match="changed after it was written"):
        load(copy)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format_version": "1"}', "null"])
def test_a_manifest_that_is_none_is_corrupt(copy: Path, text: str) -> None:
    (copy / "router.json").write_text(text)
    with pytest.raises(BundleCorruptError):
        load(copy)


def test_a_wrong_golden_score_is_refused(copy: Path) -> None:
    manifest, _ = read_bundle(copy)
    golden = [replace(item, quality=[value + 0.01 for value in item.quality]) for item in manifest.golden]
    rewrite(copy, golden=golden)
    with pytest.raises(GoldenScoreError, match="golden qualities differ"):
        load(copy)


def test_wrong_golden_ids_are_refused(copy: Path) -> None:
    manifest, _ = read_bundle(copy)
    rewrite(copy, golden=[replace(item, ids=[*item.ids, 5]) for item in manifest.golden])
    with pytest.raises(GoldenScoreError, match="other token ids"):
        load(copy)


def test_a_path_outside_the_folder_is_refused(copy: Path) -> None:
    manifest, _ = read_bundle(copy)
    escaped = replace(manifest, files={**manifest.files, "../secret": "0" * 64})
    (copy / "router.json").write_bytes(escaped.to_json())
    with pytest.raises(BundleCorruptError, match="flat folder"):
        load(copy)


def test_both_tokenizers_give_the_same_scores(bundle: Path, texts: list[str]) -> None:
    fast, reference = load(bundle, tokenizer="tokie"), load(bundle, tokenizer="tokenizers")
    assert (fast.tokenizer, reference.tokenizer) == ("tokie", "tokenizers")
    assert np.array_equal(fast.score(texts[:300]), reference.score(texts[:300]))


def test_one_seed_gives_the_same_bytes_twice(tiny_encoder: Path, sample: Sample, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        train_matrix_factorization(
            sample.performances[:1600], tmp_path / name / "router", tiny_config(tiny_encoder, path_steps=3, seed=5)
        )
    first, second = (sorted((tmp_path / name / "router").iterdir()) for name in ("a", "b"))
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name


def test_saving_over_a_bundle_replaces_it_and_leaves_nothing_beside(copy: Path) -> None:
    manifest, contents = read_bundle(copy)
    save_bundle(copy, replace(manifest, threshold=0.25), contents)
    assert load(copy).threshold == 0.25
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]


def test_saving_over_a_folder_that_is_no_bundle_is_refused(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    manifest, contents = read_bundle(bundle)
    with pytest.raises(InputError, match="is not a bundle"):
        save_bundle(tmp_path / "mine", manifest, contents)
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_a_path_below_a_file_or_in_a_locked_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file is a file; expected a folder"):
        check_replaceable(tmp_path / "file" / "deep" / "router")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(InputError, match="expected a writable folder"):
        check_replaceable(tmp_path / "deep" / "router")


def test_the_card_says_what_it_was_trained_on(bundle: Path, router: LearnedRouter) -> None:
    card = (bundle / "README.md").read_text()
    assert "**sim-max**" in card
    assert str(router.manifest.training["queries"]) in card


NAMES = st.text(min_size=1, max_size=20)
NUMBERS = st.floats(0, 1)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    """Manifests that a bundle may hold."""
    names = draw(st.lists(NAMES, min_size=2, max_size=4, unique=True))
    qualities = st.lists(NUMBERS, min_size=len(names), max_size=len(names))
    return Manifest(
        kind=draw(NAMES),
        pool=tuple(Model(name, draw(st.none() | NUMBERS), draw(st.none() | NUMBERS)) for name in names),
        strong=names[0],
        weak=names[1],
        link=draw(st.sampled_from(["difference", "bradley-terry"])),
        truncation=Truncation(draw(st.integers(1, 9999))),
        calibration=draw(st.dictionaries(NAMES, NUMBERS)),
        threshold=draw(NUMBERS),
        threshold_table=tuple(sorted(draw(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=4)))),
        novelty_bound=draw(st.none() | NUMBERS),
        training=draw(st.dictionaries(NAMES, NAMES)),
        golden=tuple(
            draw(st.lists(st.builds(Golden, NAMES, st.lists(st.integers(0, 99)), qualities), min_size=1, max_size=3))
        ),
        files={"model.onnx": "0" * 64, "tokenizer.json": "1" * 64},
    )


@given(manifests())
@settings(max_examples=60)
def test_a_manifest_survives_writing_and_reading(manifest: Manifest) -> None:
    assert Manifest.from_json(manifest.to_json(), "x") == manifest


@given(st.binary(max_size=400))
def test_bytes_that_are_no_manifest_are_a_typed_error(data: bytes) -> None:
    with pytest.raises(BundleError):
        Manifest.from_json(data, "x")
