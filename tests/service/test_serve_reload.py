"""A newer bundle takes over without a dropped request; a bad one never does."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path

import pytest
from helpers.serve import ADMIN, TOKEN, Server, wait_for

from routelearn.routers.bundle import read_bundle, save_bundle
from routelearn.routers.fallback import FallbackRouter

pytestmark = pytest.mark.slow

QUERIES = ["Prove that every group of order 15 is cyclic.", "Say hello to Ana."]


@pytest.fixture(scope="module")
def other_bundle(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same graph for another pair of models: other scores."""
    manifest, contents = read_bundle(bundle)
    return save_bundle(tmp_path_factory.mktemp("other") / "router", replace(manifest, weak="sim-nano"), contents)


def scores_of(bundle: Path) -> list[float]:
    return [decision.score for decision in FallbackRouter(bundle).route_batch(QUERIES)]


@pytest.fixture
def place(bundle: Path, tmp_path: Path) -> Path:
    """A copy of the bundle that may be changed."""
    return Path(shutil.copytree(bundle, tmp_path / "router"))


@pytest.fixture
def server(place: Path) -> Iterator[Server]:
    with Server(place, "--watch", "0.1", ROUTELEARN_ADMIN_TOKEN=ADMIN) as running:
        yield running


def put(source: Path, place: Path) -> None:
    """Exchange a bundle by two renames, as a deployment does."""
    staging = place.with_name(".staging")
    shutil.copytree(source, staging)
    place.rename(place.with_name(".old"))
    staging.rename(place)
    shutil.rmtree(place.with_name(".old"))


def digest(server: Server) -> str:
    return str(server.ask("/v1/router")[1]["bundle"])


def test_twenty_swaps_under_load_drop_nothing_and_mix_nothing(bundle: Path, other_bundle: Path, place: Path) -> None:
    """Every answer is wholly one bundle's: its scores are those of the bundle whose digest it bears."""
    expected = {}
    with Server(place, ROUTELEARN_ADMIN_TOKEN=ADMIN) as server:
        expected[digest(server)] = scores_of(bundle)
        stop = threading.Event()
        answers: list[tuple[str, tuple[float, ...]]] = []
        failures: list[object] = []

        def hammer() -> None:
            connection = HTTPConnection("127.0.0.1", server.port, timeout=30)
            body = json.dumps({"queries": QUERIES})
            while not stop.is_set():
                try:
                    connection.request("POST", "/v1/score", body, {"content-type": "application/json"})
                    reply = connection.getresponse()
                    content = json.loads(reply.read())
                    if reply.status != 200:
                        raise ValueError(content)
                    answers.append((content["bundle"], tuple(content["scores"])))
                except Exception as error:  # noqa: BLE001 - whatever it is, it is a request that failed
                    failures.append(error)
                    return
            connection.close()

        threads = [threading.Thread(target=hammer) for _ in range(6)]
        for thread in threads:
            thread.start()
        for number in range(20):
            put(bundle if number % 2 else other_bundle, place)
            status, reply = server.ask("/v1/reload", method="POST", token=ADMIN)
            assert status == 200, reply
            if number == 0:
                expected[reply["bundle"]] = scores_of(other_bundle)
        stop.set()
        for thread in threads:
            thread.join(30)
        assert not failures
        assert server.ask("/v1/router")[1]["reloads"] == 20
    assert len(expected) == 2
    assert set(Counter(bundle for bundle, _ in answers)) == set(expected)
    for found_digest, scores in set(answers):
        assert scores == pytest.approx(expected[found_digest], abs=1e-6)


def test_a_watched_bundle_takes_over_by_itself(server: Server, other_bundle: Path, place: Path) -> None:
    before = digest(server)
    put(other_bundle, place)
    wait_for(lambda: digest(server) != before)
    assert server.ask("/v1/score", {"queries": QUERIES})[1]["scores"] == pytest.approx(
        scores_of(other_bundle), abs=1e-6
    )


def test_a_bundle_that_is_copied_slowly_takes_over_when_it_is_whole(
    server: Server, other_bundle: Path, place: Path
) -> None:
    """File by file and piece by piece, as over a network: no half of it is ever tried and refused for good."""
    before = digest(server)
    for name in ("router.json", "README.md", "tokenizer.json", "model.onnx"):
        data = (other_bundle / name).read_bytes()
        with (place / name).open("wb") as file:
            for start in range(0, len(data), len(data) // 5 + 1):
                file.write(data[start : start + len(data) // 5 + 1])
                file.flush()
                time.sleep(0.05)
    wait_for(lambda: digest(server) != before)
    assert server.ask("/v1/router")[1]["reload_error"] is None


def test_a_bad_bundle_is_refused_and_the_old_one_goes_on(server: Server, bundle: Path, place: Path) -> None:
    before = server.ask("/v1/score", {"queries": QUERIES})[1]
    model = (place / "model.onnx").read_bytes()
    (place / "model.onnx").write_bytes(model[:-1] + bytes([model[-1] ^ 1]))
    error = wait_for(lambda: server.ask("/v1/router")[1]["reload_error"])
    assert "sha256" in error
    assert server.ask("/v1/score", {"queries": QUERIES})[1] == before
    metrics = server.ask("/metrics")[1]
    assert "routelearn_bundle_reload_failed 1.0" in metrics
    assert 'routelearn_bundle_reloads_total{result="refused"} 1.0' in metrics
    status, reply = server.ask("/v1/reload", method="POST", token=ADMIN)
    assert (status, reply["error"]["type"]) == (409, "bundle_refused")
    assert server.ask("/healthz") == (200, {"status": "ok", "answers": "learned"})

    put(bundle, place)
    wait_for(lambda: server.ask("/v1/router")[1]["reload_error"] is None)


def test_what_a_bundle_holds_in_the_place_of_a_guarantee_is_refused_and_watching_goes_on(
    server: Server, bundle: Path, other_bundle: Path, place: Path, tmp_path: Path
) -> None:
    manifest, contents = read_bundle(bundle)
    put(save_bundle(tmp_path / "strange", replace(manifest, guarantee={"threshold": "abc"}), contents), place)
    assert "guarantee" in wait_for(lambda: server.ask("/v1/router")[1]["reload_error"])
    before = digest(server)
    put(other_bundle, place)
    wait_for(lambda: digest(server) != before)


def test_a_bundle_that_is_gone_leaves_the_old_one(server: Server, place: Path) -> None:
    before = digest(server)
    shutil.rmtree(place)
    status, reply = server.ask("/v1/reload", method="POST", token=ADMIN)
    assert status == 409
    assert "no such folder" in reply["error"]["message"]
    assert digest(server) == before


def test_a_signal_reloads(bundle: Path, other_bundle: Path, place: Path) -> None:
    with Server(place) as server:
        before = digest(server)
        put(other_bundle, place)
        time.sleep(0.5)
        assert digest(server) == before  # not watched
        os.kill(server.process.pid, signal.SIGHUP)
        wait_for(lambda: digest(server) != before)


def test_a_bundle_without_the_asked_for_models_is_refused(bundle: Path, place: Path, tmp_path: Path) -> None:
    """The models of the command line hold for every bundle that follows: rules never take over by a reload."""
    manifest, contents = read_bundle(bundle)
    pool = [replace(model, name=f"new-{model.name}") for model in manifest.pool]
    renamed = replace(manifest, pool=pool, strong="new-sim-max", weak="new-sim-small")
    lacking = save_bundle(tmp_path / "lacking", renamed, contents)
    options = ("--strong", "sim-max", "--weak", "sim-small", "--fallback")
    with Server(place, *options, ROUTELEARN_ADMIN_TOKEN=ADMIN) as server:
        put(lacking, place)
        status, reply = server.ask("/v1/reload", method="POST", token=ADMIN)
        assert status == 409
        assert "never seen" in reply["error"]["message"]
        assert server.ask("/healthz")[1]["answers"] == "learned"


def test_only_the_admin_token_reloads(place: Path) -> None:
    with Server(place, ROUTELEARN_TOKEN=TOKEN, ROUTELEARN_ADMIN_TOKEN=ADMIN) as server:
        assert server.ask("/v1/reload", method="POST")[0] == 401
        assert server.ask("/v1/reload", method="POST", token=TOKEN)[0] == 403
        assert server.ask("/v1/reload", method="POST", token=ADMIN)[0] == 200
    with Server(place) as server:
        assert server.ask("/v1/reload", method="POST")[0] == 403


def test_reloads_leave_no_threads_and_little_memory_behind(server: Server) -> None:
    import psutil

    process = psutil.Process(server.process.pid)
    counts = []
    for _ in range(15):
        assert server.ask("/v1/reload", method="POST", token=ADMIN)[0] == 200
        assert server.ask("/v1/score", {"queries": QUERIES * 200})[0] == 200
        counts.append((process.num_threads(), process.memory_info().rss))
    assert counts[-1][0] <= counts[4][0] + 1
    assert counts[-1][1] < counts[4][1] + 64e6
