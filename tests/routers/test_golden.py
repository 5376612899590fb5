"""The one golden check, alone and in the places that use it: routers, verifiers, graphs for other runtimes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from routelearn.cascade.verifier import load_verifier
from routelearn.routers.bundle import Golden, read_bundle, save_bundle
from routelearn.routers.decision import Floats
from routelearn.routers.errors import BundleCorruptError, GoldenScoreError, InferenceError
from routelearn.routers.golden import GOLDEN_PAIRS, GOLDEN_QUERIES, check_golden, golden_ids_match
from routelearn.routers.loading import load
from routelearn.training.export.portable import export_portable

EXPECTED = [[0.25, 0.5], [0.75, 1.0]]


def check(compute: Callable[[], Floats], expected: Any = EXPECTED) -> None:
    check_golden(compute, expected, tolerance=0.01, name="qualities", where="the bundle")


def test_results_within_the_tolerance_pass() -> None:
    check(lambda: np.asarray(EXPECTED, np.float32) + np.float32(0.009))


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ([[0.25, 0.5], [0.75, 0.98]], "golden qualities differ from the stored ones by 0.02; expected at most 0.01"),
        ([[0.25, 0.5]], r"have the shape \(1, 2\); expected \(2, 2\)"),
        ([[0.25, 0.5], [0.75, float("nan")]], "not finite; expected finite numbers"),
        ([[0.25, 0.5], [0.75, float("inf")]], "not finite; expected finite numbers"),
    ],
)
def test_other_results_are_a_golden_score_error(results: list[list[float]], message: str) -> None:
    with pytest.raises(GoldenScoreError, match=message):
        check(lambda: np.asarray(results, np.float32))


def test_a_bundle_without_golden_inputs_and_a_graph_that_fails_are_corrupt() -> None:
    def fail() -> Floats:
        raise InferenceError("the graph is broken")

    with pytest.raises(BundleCorruptError, match="holds no golden qualities"):
        check(lambda: np.empty((0, 2), np.float32), [])
    with pytest.raises(BundleCorruptError, match="fails on the golden inputs: the graph is broken"):
        check(fail)


def test_ids_match_only_where_every_row_does() -> None:
    golden = [Golden("a", [1, 2], [0.5]), Golden("b", [], [0.5])]
    empty = np.empty(0, np.int32)
    assert golden_ids_match([np.array([1, 2], np.int32), empty], golden)
    assert not golden_ids_match([np.array([1, 3], np.int32), empty], golden)


def changed(bundle: Path, folder: Path, change: Callable[[Golden], Golden]) -> Path:
    """A copy of a bundle with other golden results, signed again."""
    copy = Path(shutil.copytree(bundle, folder / "copy"))
    manifest, contents = read_bundle(copy)
    save_bundle(copy, replace(manifest, golden=tuple(map(change, manifest.golden))), contents)
    return copy


def worse(golden: Golden) -> Golden:
    return replace(golden, quality=[value - 0.1 * position for position, value in enumerate(golden.quality, 1)])


def test_a_router_with_other_golden_scores_is_refused(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(GoldenScoreError, match="golden qualities differ"):
        load(changed(bundle, tmp_path, worse))


def test_a_verifier_with_other_golden_scores_or_ids_is_refused(verifier_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "scores").mkdir()
    with pytest.raises(GoldenScoreError, match="golden confidences differ"):
        load_verifier(changed(verifier_bundle, tmp_path / "scores", worse))
    (tmp_path / "ids").mkdir()
    with pytest.raises(GoldenScoreError, match="other token ids"):
        load_verifier(changed(verifier_bundle, tmp_path / "ids", lambda golden: replace(golden, ids=[*golden.ids, 5])))


@pytest.mark.slow
def test_a_text_graph_with_other_golden_scores_is_not_exported(bundle: Path, tmp_path: Path) -> None:
    copy = changed(bundle, tmp_path, worse)
    with pytest.raises(GoldenScoreError, match="is not exported: golden scores differ"):
        export_portable(copy, tmp_path / "text", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


def test_golden_inputs_are_stored_in_every_bundle(bundle: Path, verifier_bundle: Path) -> None:
    assert len(read_bundle(bundle)[0].golden) == len(GOLDEN_QUERIES)
    assert len(read_bundle(verifier_bundle)[0].golden) == len(GOLDEN_PAIRS)
