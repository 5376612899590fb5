"""A bundle is loaded in a process of its own first: what hangs or dies there leaves the service alone."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from helpers.hostile import BUNDLE, endless_bundle
from helpers.serve import Server

from routelearn.routers.errors import BundleCorruptError, BundleError, BundleMissingError, InputError
from routelearn.service.http.server import GRACE_S
from routelearn.service.trial import BundleTrial

pytestmark = pytest.mark.slow
ADMIN = "an-administrator-of-routers"
SHUTDOWN_S = 2


def test_a_good_bundle_passes_and_a_bad_one_raises_what_loading_raises(tmp_path: Path, verifier_bundle: Path) -> None:
    BundleTrial(BUNDLE, timeout_s=60).run()
    with pytest.raises(BundleMissingError, match="no such folder"):
        BundleTrial(tmp_path / "none", timeout_s=60).run()
    with pytest.raises(InputError, match="is a verifier"):
        BundleTrial(verifier_bundle, timeout_s=60).run()
    changed = Path(shutil.copytree(BUNDLE, tmp_path / "changed"))
    (changed / "model.onnx").write_bytes(b"")
    with pytest.raises(BundleCorruptError, match="was changed after the export"):
        BundleTrial(changed, timeout_s=60).run()


def test_a_load_that_does_not_end_is_ended(tmp_path: Path) -> None:
    trial = BundleTrial(endless_bundle(tmp_path / "bundle"), timeout_s=2)
    with pytest.raises(BundleError, match="did not load within 2 s"):
        trial.run()
    threading.Timer(1, trial.stop).start()
    begun = time.monotonic()
    with pytest.raises(BundleError):
        BundleTrial.run(trial)
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize("ending", ["kill -SEGV $$", "kill -ABRT $$", "echo no module of that name >&2; exit 7"])
def test_a_load_that_ends_its_process_is_a_typed_error(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "python").write_text(f"#!/bin/sh\n{ending}\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(BundleError, match=r"ended its process .*(SIGSEGV|SIGABRT|exit code 7: no module)"):
        BundleTrial(BUNDLE, timeout_s=60).run()


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_a_time_limit_must_be_seconds_above_0(seconds: float) -> None:
    with pytest.raises(InputError, match="expected seconds above 0"):
        BundleTrial(BUNDLE, timeout_s=seconds)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return Path(shutil.copytree(BUNDLE, tmp_path / "router"))


@pytest.mark.parametrize("way", ["watch", "signal", "post"])
def test_the_service_ends_in_its_time_while_a_load_hangs_and_refuses_a_second_reload(way: str, place: Path) -> None:
    options = ["--shutdown-timeout", str(SHUTDOWN_S), *(["--watch", "0.1"] if way == "watch" else [])]
    with Server(place, *options, ROUTELEARN_ADMIN_TOKEN=ADMIN) as server:
        endless_bundle(place)
        if way == "signal":
            server.process.send_signal(signal.SIGHUP)
        if way == "post":
            ask = threading.Thread(target=lambda: server.ask("/v1/reload", method="POST", token=ADMIN), daemon=True)
            ask.start()
        end = time.monotonic() + 30
        status, reply = 0, {}
        while status != 409 and time.monotonic() < end:
            time.sleep(0.5 if not status else 0.1)
            before = time.monotonic()
            status, reply = server.ask("/v1/reload", method="POST", token=ADMIN)
            assert time.monotonic() - before < 20
        assert (status, reply["error"]["type"]) == (409, "reload_running")
        assert server.ask("/v1/route", {"queries": ["hi"]})[0] == 200
        begun = time.monotonic()
        assert server.stop(timeout=SHUTDOWN_S + GRACE_S + 10) in {0, 1, -signal.SIGTERM}
        assert time.monotonic() - begun < SHUTDOWN_S + GRACE_S + 3


def test_a_reload_that_takes_too_long_is_refused_and_the_next_bundle_is_taken(place: Path) -> None:
    with Server(place, "--watch", "0.1", "--load-timeout", "5", ROUTELEARN_ADMIN_TOKEN=ADMIN) as server:
        endless_bundle(place)
        end = time.monotonic() + 60
        while not (error := server.ask("/v1/router")[1]["reload_error"]) and time.monotonic() < end:
            time.sleep(0.1)
        assert "did not load within 5 s" in error
        shutil.rmtree(place)
        shutil.copytree(BUNDLE, place)
        while server.ask("/v1/router")[1]["reload_error"] and time.monotonic() < end:
            time.sleep(0.1)
        assert server.ask("/v1/router")[1]["reloads"] == 1


@pytest.mark.parametrize("fallback", [(), ("--fallback", "--strong", "large", "--weak", "small")])
def test_the_service_starts_by_rules_or_not_at_all_when_the_load_does_not_end(
    fallback: tuple[str, ...], place: Path
) -> None:
    endless_bundle(place)
    if fallback:
        with Server(place, "--load-timeout", "2", *fallback) as server:
            assert "did not load within 2 s" in server.ask("/v1/router")[1]["unavailable"]
            assert server.ask("/v1/route", {"queries": ["hi"]})[1]["decisions"][0]["cause"] == "load-failed"
        return
    command = [sys.executable, "-m", "routelearn", "serve", str(place), "--port", "0", "--load-timeout", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2
    assert "did not load within 2 s" in done.stderr
