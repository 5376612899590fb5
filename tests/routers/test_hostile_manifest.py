"""Manifests by somebody who means harm: signed again with any value in any field, and never an untyped error.

ROUTELEARN_MUTATIONS sets how many manifests are tried (500 unless set).
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from routelearn.cascade.verifier import Verifier, load_verifier
from routelearn.routers.bundle import MANIFEST, Manifest, read_manifest
from routelearn.routers.errors import BundleCorruptError, BundleError, RoutelearnError
from routelearn.routers.fallback import FallbackRouter
from routelearn.routers.loading import describe, load

BUNDLES = Path(__file__).resolve().parents[1] / "bundles"
MUTATIONS = int(os.environ.get("ROUTELEARN_MUTATIONS", "500"))
DEEP: Any = []
for _ in range(200):
    DEEP = [DEEP]
VALUES: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        2,
        0.5,
        -0.0,
        1e-9,
        1e308,
        -1e308,
        float("nan"),
        float("inf"),
        10**400,
        2**31,
        2**63,
    ),
    *("", "x", "sim-max", "sim-small", "\ud800", "../x", "\x00", "x" * 5000, "difference", "verifier", "bert"),
    *([], {}, [[]], [None], [{}], ["x", 1], [[0.5, 0.5]], {"x": 1}, {"name": "a"}, {"": None}, [0.1] * 4, DEEP),
]


def signed(content: dict[str, Any]) -> bytes:
    """A manifest whose digest fits, whatever it holds."""
    content = {name: value for name, value in content.items() if name != "manifest_sha256"}
    canonical = json.dumps(content, ensure_ascii=True, sort_keys=True, separators=(",", ":"))
    content["manifest_sha256"] = hashlib.sha256(canonical.encode()).hexdigest()
    return json.dumps(content).encode()


def containers(value: Any) -> list[Any]:
    """Every object and list in a value; each field of the manifest is as likely as its number of parts."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [value, *(one for item in inner if isinstance(item, (dict, list)) for one in containers(item))]


def mutate(content: dict[str, Any], chance: random.Random) -> None:
    """Change, add, remove, repeat or swap one or more values somewhere."""
    for _ in range(chance.choice([1, 1, 1, 2, 4])):
        top = chance.choice(sorted(content)) if content else "x"
        below = containers(content.get(top, 0))
        place = chance.choice([content, *below[:20], *chance.sample(below, min(5, len(below)))])
        value = copy.deepcopy(chance.choice(VALUES))
        if isinstance(place, dict):
            key = top if place is content else chance.choice([*place, "x"])
            if chance.random() < 0.1:
                place.pop(key, None)
            else:
                place[key] = value
        elif isinstance(place, list):
            at = chance.randrange(len(place)) if place else 0
            place[at : at + chance.randrange(2)] = [value] * chance.choice([0, 1, 1, 1, 3])


def outcome(action: Callable[[], object]) -> object:
    """What an action gives; None: a typed error."""
    try:
        return action()
    except RoutelearnError:
        return None


def use(folder: Path) -> bool:
    """Do with a router's bundle all that a service does; return whether it loads."""
    described = outcome(lambda: describe(folder))
    router = outcome(lambda: FallbackRouter(folder, strong="sim-max", weak="sim-small"))
    assert isinstance(router, FallbackRouter)
    assert router.load_error is None or isinstance(router.load_error, RoutelearnError)
    assert router.route("hi").model in {"sim-max", "sim-small"}
    if router.load_error is not None:
        return False
    assert described
    json.dumps(described, allow_nan=False).encode()
    learned = load(folder)
    assert len(learned.manifest.digest()) == 64
    assert learned.score(["hi", "x" * 9000]).shape == (2,)
    assert len(FallbackRouter(folder).route_batch(["", "hi", "x" * 9000])) == 3
    return True


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["version-1", "version-3-similarity", "version-5"])
def test_a_manifest_signed_again_loads_or_is_a_typed_error(kind: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(BUNDLES / kind, tmp_path / "bundle"))
    original = json.loads((folder / MANIFEST).read_bytes())
    loaded = 0
    for seed in range(MUTATIONS // 2):
        content = copy.deepcopy(original)
        mutate(content, random.Random(seed))
        (folder / MANIFEST).write_bytes(signed(content))
        try:
            loaded += use(folder)
        except BaseException as error:
            raise AssertionError(f"seed {seed}") from error
    assert 0 < loaded < MUTATIONS // 2


def test_a_manifest_of_a_verifier_signed_again_loads_or_is_a_typed_error(verifier_bundle: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(verifier_bundle, tmp_path / "bundle"))
    original = json.loads((folder / MANIFEST).read_bytes())
    for seed in range(MUTATIONS // 5):
        content = copy.deepcopy(original)
        mutate(content, random.Random(seed))
        (folder / MANIFEST).write_bytes(signed(content))
        if outcome(lambda: read_manifest(folder)) is not None:
            verifier = cast("Verifier | None", outcome(lambda: load_verifier(folder)))
            if verifier is not None:
                assert -1e12 <= verifier.threshold_for(0.5) <= 1e12
                for query in ("hi", "x" * 9000):
                    outcome(partial(verifier.confidence, [query], ["yes"], [0.5]))


def changed(**fields: Any) -> bytes:
    return signed({**json.loads((BUNDLES / "version-3" / MANIFEST).read_bytes()), **fields})


ORIGINAL = json.loads((BUNDLES / "version-3" / MANIFEST).read_bytes())
FIRST = ORIGINAL["golden"][0]


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"threshold": float("nan")}, "NaN"),
        ({"threshold": 10**400}, "threshold is 1000"),
        ({"threshold": True}, "threshold is True; expected a number"),
        ({"golden_tolerance": float("nan")}, "NaN"),
        ({"golden_tolerance": 1e9}, "golden_tolerance is 1000000000.0; expected a number from 0 to 1"),
        ({"golden_tolerance": -1}, "golden_tolerance is -1"),
        ({"novelty_bound": "x"}, "novelty_bound is 'x'; expected a number"),
        ({"threshold_table": [[0.5, 0.1], [0.4, 0.2]]}, "rising shares"),
        ({"threshold_table": [[0.5, "x"]]}, r"threshold_table\[0\]\[1\] is 'x'"),
        ({"pool": [{"name": "a"}, {"name": "a"}]}, "distinct names"),
        ({"pool": [{"name": "a", "input_price": -1}]}, r"pool\[0\].input_price is -1"),
        ({"weak": "sim-max"}, "two models of the pool"),
        ({"weak": []}, r"weak is \[\]; expected a text"),
        ({"link": []}, r"link is \[\]"),
        ({"truncation": {**ORIGINAL["truncation"], "max_tokens": 2**63}}, "max_tokens is 9223372036854775808"),
        ({"truncation": {**ORIGINAL["truncation"], "special_tokens": []}}, "expected true or false"),
        ({"golden": []}, "at least one"),
        ({"golden": [{**FIRST, "quality": [0.5]}]}, "expected 4 numbers"),
        ({"golden": [{**FIRST, "ids": [2**31]}]}, "ids is 2147483648"),
        ({"golden": [{**FIRST, "query": 5}]}, r"golden\[0\].query: a query is int"),
        ({"golden": [FIRST] * 1001}, "at most 1,000"),
        ({"golden": [{**FIRST, "query": "x" * (1 << 20)}]}, "characters"),
        ({"training": {"x": "\ud800"}}, "surrogate"),
        ({"training": {"x": DEEP}}, "nests deeper than 50"),
        ({"training": 5}, "training is 5; expected a JSON object"),
        ({"files": [["model.onnx", "0" * 64]]}, "expected a JSON object"),
        ({"files": {"model.onnx": "0", "tokenizer.json": "0"}}, "sha256"),
        ({"reference": {"score": {"n": "x", "values": [], "shares": []}}}, "reference.score.n is 'x'"),
        ({"reference": {}}, "reference.score is None"),
        ({"guarantee": {"threshold": 10**400}}, "guarantee.threshold"),
        ({"format_version": True}, "format_version True"),
    ],
)
def test_the_message_names_the_field_what_it_holds_and_what_is_expected(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(BundleCorruptError, match=why):
        Manifest.from_json(changed(**fields), "b")


@pytest.mark.parametrize(("part", "times"), [("[],", 600_000), ("1,", 2_100_000)])
def test_a_manifest_of_more_parts_than_any_has_is_refused_before_it_is_parsed(part: str, times: int) -> None:
    with pytest.raises(BundleCorruptError, match="expected at most 500,000 and 2,000,000"):
        Manifest.from_json(f'{{"a":[{part * times}1]}}'.encode(), "b")


def test_every_manifest_of_ours_passes() -> None:
    for folder in BUNDLES.glob("version-*"):
        assert read_manifest(folder).pool


def test_a_manifest_that_passes_can_be_written_and_read_again() -> None:
    manifest = Manifest.from_json(changed(training={"é": [1, 2.5, None, {"x": "🙂"}]}), "b")
    assert Manifest.from_json(manifest.to_json(), "b").digest() == manifest.digest()


def test_a_folder_in_the_place_of_a_file_is_a_typed_error(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(BUNDLES / "version-3", tmp_path / "bundle"))
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").mkdir()
    with pytest.raises(BundleError, match="not a regular file"):
        load(folder)
