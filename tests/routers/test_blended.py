"""A router with a companion, the graph of its general part: what it computes, and what is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from routelearn.evaluation.thresholds.calibrate import calibrate_by_strong_share, save_calibrated
from routelearn.routers.blended import BlendedRouter
from routelearn.routers.bundle import COMPANION, COMPANION_TOKENIZER, MANIFEST, MODEL, read_bundle, save_bundle
from routelearn.routers.errors import BundleCorruptError, BundleError, BundleMissingError, GoldenScoreError
from routelearn.routers.fallback import FallbackRouter
from routelearn.routers.golden import GOLDEN_QUERIES
from routelearn.routers.hub import HubRouter
from routelearn.routers.learned import LearnedRouter
from routelearn.routers.loading import describe, load

BUNDLES = Path(__file__).resolve().parents[1] / "bundles"
#: A small bundle with a companion, which reads 64 tokens; the router reads 512.
BUNDLE = BUNDLES / "version-5"
QUERIES = list(GOLDEN_QUERIES)
LONG = "Prove that there are infinitely many primes, and then count them. " * 6


@pytest.fixture(scope="module")
def blended() -> BlendedRouter:
    router = load(BUNDLE)
    assert isinstance(router, BlendedRouter)
    return router


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(BUNDLE, tmp_path / "copy"))


def test_the_quality_lies_between_its_own_and_the_general_one_by_the_share(blended: BlendedRouter) -> None:
    own, general, share = blended.parts(QUERIES)
    assert ((share >= 0) & (share <= 1)).all()
    assert share.min() < 0.3
    assert share.max() == 1
    expected = (1 - share[:, None]) * own + share[:, None] * general
    assert blended.quality(QUERIES) == pytest.approx(expected, abs=1e-6)
    assert np.abs(own - expected).max() > 0.1


def test_its_own_quality_is_that_of_its_own_graph(blended: BlendedRouter) -> None:
    assert np.array_equal(blended.parts(QUERIES)[0], load(BUNDLES / "version-4").quality(QUERIES))


def test_one_query_many_and_an_assessment_agree(blended: BlendedRouter) -> None:
    queries = [*QUERIES, LONG]
    quality, assessment = blended.quality(queries), blended.assess(queries)
    alone = np.concatenate([blended.quality([query]) for query in queries])
    assert alone == pytest.approx(quality, abs=1e-6)
    assert assessment.quality == pytest.approx(quality, abs=1e-6)
    assert [blended.score([query])[0] for query in queries] == pytest.approx(blended.score(queries), abs=1e-6)
    assert [bool(blended.assess([query]).truncated[0]) for query in queries] == assessment.truncated.tolist()
    assert assessment.novelty is not None
    assert blended.route(QUERIES[0]).source == "learned"


def test_a_query_that_only_the_companion_cuts_is_marked_truncated(blended: BlendedRouter) -> None:
    assert not load(BUNDLES / "version-4").assess([LONG]).truncated[0]
    assert blended.assess([LONG]).truncated[0]
    assert blended.assess([LONG, "Hi!"]).truncated.tolist() == [True, False]


def test_no_queries_give_no_rows(blended: BlendedRouter) -> None:
    assert blended.quality([]).shape == (0, len(blended.models))
    assert blended.score([]).shape == (0,)
    assert blended.route_batch([]) == []


def test_a_fallback_router_and_a_copy_by_way_of_the_hub_blend_as_well(blended: BlendedRouter, tmp_path: Path) -> None:
    expected = blended.quality(QUERIES)
    assert np.array_equal(FallbackRouter(BUNDLE, novelty_bound=2.0).quality(QUERIES), expected)
    hub = HubRouter.from_pretrained(BUNDLE)
    hub.save_pretrained(tmp_path / "copy")
    again = HubRouter.from_pretrained(tmp_path / "copy")
    assert np.array_equal(hub.quality(QUERIES), expected)
    assert np.array_equal(again.quality(QUERIES), expected)
    assert np.array_equal(load(tmp_path / "copy").quality(QUERIES), expected)


def test_a_calibrated_bundle_keeps_its_companion(blended: BlendedRouter, tmp_path: Path) -> None:
    calibration = calibrate_by_strong_share(blended, QUERIES * 20, 0.3)
    again = load(save_calibrated(BUNDLE, tmp_path / "calibrated", calibration))
    assert again.threshold == calibration.threshold
    assert np.array_equal(again.quality(QUERIES), blended.quality(QUERIES))


def test_a_description_lists_the_files_of_the_companion() -> None:
    sizes = describe(BUNDLE)["bytes"]
    assert sizes[COMPANION] == (BUNDLE / COMPANION).stat().st_size
    assert COMPANION_TOKENIZER in sizes


def test_an_older_bundle_has_no_companion() -> None:
    assert type(load(BUNDLES / "version-4")) is LearnedRouter


# What is refused


def resaved(folder: Path, changes: dict[str, bytes | None], **fields: Any) -> Path:
    """The bundle with other files or fields, signed again as a stranger can; None leaves a file out."""
    manifest, contents = read_bundle(BUNDLE)
    kept = {name: data for name, data in {**contents, **changes}.items() if data is not None}
    return save_bundle(folder, replace(manifest, **fields), kept)


@pytest.mark.parametrize("name", [COMPANION, COMPANION_TOKENIZER])
def test_a_bundle_with_one_of_the_two_files_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(
        BundleCorruptError, match=r"lists the files .* expected a flat folder of \['general\.onnx', 'general_tok"
    ):
        load(resaved(tmp_path / "one", {name: None}))


def test_files_without_the_field_are_refused_and_so_is_the_field_without_files(tmp_path: Path) -> None:
    with pytest.raises(
        BundleCorruptError,
        match=r"lists the files \[.*'general\.onnx'.*\]; expected a flat folder of \['model\.onnx', 'tok",
    ):
        load(resaved(tmp_path / "files", {}, companion=None))
    with pytest.raises(BundleCorruptError, match=r"expected a flat folder of \['general\.onnx', 'general_tok"):
        load(resaved(tmp_path / "field", {COMPANION: None, COMPANION_TOKENIZER: None}))


@pytest.mark.parametrize("name", [COMPANION, COMPANION_TOKENIZER])
def test_a_missing_changed_or_linked_file_is_named(copy: Path, name: str) -> None:
    data = (copy / name).read_bytes()
    (copy / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(BundleCorruptError, match=name):
        load(copy)
    (copy / name).unlink()
    with pytest.raises(BundleMissingError, match=name):
        load(copy)
    (copy / name).symlink_to(BUNDLE / name)
    with pytest.raises(BundleCorruptError, match=f"{name} is a symbolic link"):
        load(copy)


def with_outputs(change: Callable[[Any], object]) -> bytes:
    """The graph of the companion with other outputs."""
    model = onnx.load_from_string((BUNDLE / COMPANION).read_bytes())
    change(model.graph)
    return bytes(model.SerializeToString())


def without_share(graph: Any) -> None:
    del graph.output[1]


def one_model(graph: Any) -> None:
    """The quality of the first model alone."""
    for node in graph.node:
        node.output[:] = ["all" if name == "quality" else name for name in node.output]
    names = {"first": [0], "second": [1], "axis": [1]}
    graph.initializer.extend(onnx.numpy_helper.from_array(np.array(value), name) for name, value in names.items())
    graph.node.append(onnx.helper.make_node("Slice", ["all", *names], ["quality"]))
    graph.output[0].type.tensor_type.shape.dim[1].dim_value = 1


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (b"", r"general\.onnx"),
        (b"\x08\x0a", r"general\.onnx"),
        ((BUNDLE / MODEL).read_bytes(), r"general\.onnx has the outputs"),
        (with_outputs(without_share), r"general\.onnx has the outputs \['quality'\]; expected \['quality', 'share'\]"),
        (with_outputs(one_model), r"general\.onnx gave 1 qualities of 4 models"),
    ],
)
def test_a_graph_that_is_no_companion_is_refused(graph: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(BundleCorruptError, match=message):
        load(resaved(tmp_path / "bad", {COMPANION: graph}))


def test_a_graph_that_reads_a_file_is_refused_by_the_name_of_the_companion(tmp_path: Path) -> None:
    def outside(graph: Any) -> None:
        graph.initializer[0].ClearField("raw_data")
        graph.initializer[0].data_location = 1
        graph.initializer[0].external_data.add(key="location", value="/etc/passwd")

    with pytest.raises(
        BundleCorruptError, match=r"general\.onnx is not an ONNX model that may be loaded.*another file"
    ):
        load(resaved(tmp_path / "bad", {COMPANION: with_outputs(outside)}))


def test_other_weights_of_the_companion_change_the_golden_qualities(tmp_path: Path) -> None:
    def changed(graph: Any) -> None:
        bias = next(one for one in graph.initializer if one.name == "general_bias")
        bias.raw_data = (onnx.numpy_helper.to_array(bias) + np.float32(0.5)).tobytes()

    with pytest.raises(GoldenScoreError, match="golden qualities differ"):
        load(resaved(tmp_path / "bad", {COMPANION: with_outputs(changed)}))


def test_another_tokenizer_of_the_companion_is_refused(tmp_path: Path) -> None:
    content = json.loads((BUNDLE / COMPANION_TOKENIZER).read_text())
    content["normalizer"]["lowercase"] = False
    with pytest.raises(GoldenScoreError, match=r"general_tokenizer\.json gives the golden queries other token ids"):
        load(resaved(tmp_path / "bad", {COMPANION_TOKENIZER: json.dumps(content).encode()}))
    with pytest.raises(BundleError, match=r"general_tokenizer\.json cannot be used"):
        load(resaved(tmp_path / "list", {COMPANION_TOKENIZER: b"[]"}))


@pytest.mark.parametrize(
    "change",
    [
        {"truncation": None},
        {"truncation": {"max_tokens": 0}},
        {"truncation": {"max_tokens": 1 << 30}},
        {"truncation": {"distinct": "yes"}},
        {"golden_ids": []},
        {"golden_ids": [["a"]] * len(QUERIES)},
        {"golden_ids": [[-1]] * len(QUERIES)},
        {"golden_ids": [[1] * 10_000] * len(QUERIES)},
        {"other": 1},
    ],
)
def test_a_field_that_cannot_be_used_is_refused(change: dict[str, Any], copy: Path) -> None:
    content = json.loads((copy / MANIFEST).read_text())
    del content["manifest_sha256"]
    content["companion"].update(change)
    sign(copy, content)
    with pytest.raises(BundleCorruptError, match=r"router\.json: companion"):
        load(copy)


@pytest.mark.parametrize("kind", ["verifier", "general"])
def test_a_kind_that_would_ignore_its_companion_is_refused(kind: str, copy: Path) -> None:
    content = json.loads((copy / MANIFEST).read_text())
    del content["manifest_sha256"]
    content["kind"] = kind
    if kind == "general":
        content["general"] = {"abilities": {}, "strong": 1, "weak": 0, "items": [[1, 0]]}
    else:
        content["golden"] = [{**one, "query": {"query": "", "answer": ""}, "quality": [0]} for one in content["golden"]]
    sign(copy, content)
    with pytest.raises(BundleCorruptError, match=f"expected null, because the kind is '{kind}'"):
        load(copy)


def sign(folder: Path, content: dict[str, Any]) -> None:
    canonical = json.dumps(content, ensure_ascii=True, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    (folder / MANIFEST).write_text(json.dumps({**content, "manifest_sha256": digest}))
