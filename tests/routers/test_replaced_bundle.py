"""A bundle that is replaced: its name always holds one whole bundle, and a load meanwhile reads one whole bundle.

Each test runs where the file system exchanges two folders in one step, and where it needs two renames.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from routelearn.routers import bundle_files
from routelearn.routers.bundle import read_bundle, read_manifest, save_bundle
from routelearn.routers.errors import BundleCorruptError, BundleMissingError
from routelearn.routers.loading import load

BUNDLE = Path(__file__).resolve().parents[1] / "bundles" / "version-3"
MANIFEST, CONTENTS = read_bundle(BUNDLE)
#: What kills a process: a change of a file or folder.
CHANGES = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod"}


@pytest.fixture(params=["exchange", "two renames"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == "two renames":
        monkeypatch.setattr(bundle_files, "_exchange", lambda one, other: False)
    yield request.param


def save(path: Path, threshold: float) -> None:
    """Write a bundle whose manifest and README belong to one threshold."""
    save_bundle(path, replace(MANIFEST, threshold=threshold), {**CONTENTS, "README.md": str(threshold).encode()})


def threshold_of(path: Path) -> float:
    manifest, contents = read_bundle(path)
    assert float(contents["README.md"]) == manifest.threshold
    return manifest.threshold


def killed_at(step: int, action: Callable[[], None], below: Path) -> bool:
    """Run an action in a child that kills itself at a change below a folder; return whether it got so far."""
    child = os.fork()
    if child == 0:
        left = step

        def count(event: str, values: tuple[object, ...]) -> None:
            nonlocal left
            if event in CHANGES and str(below) in str(values[:2]):
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        action()
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.slow
def test_a_kill_at_any_step_leaves_the_old_bundle_or_the_new_one(way: str, tmp_path: Path) -> None:
    place = tmp_path / "router"
    found = []
    for step in range(100):
        shutil.rmtree(tmp_path)
        save(place, 0.1)
        if not killed_at(step, lambda: save(place, 0.9), tmp_path):
            break
        found.append(threshold_of(place))
        assert load(place).manifest.threshold == found[-1]
        save(place, 0.5)  # and the next export works
        assert threshold_of(place) == 0.5
        assert not list(tmp_path.glob(".router.*.old"))
    assert found == sorted(found)
    assert {0.1, 0.9} == set(found)


def test_who_reads_while_a_bundle_is_replaced_reads_one_whole_bundle(way: str, tmp_path: Path) -> None:
    place = tmp_path / "router"
    save(place, 0.25)
    done = threading.Event()

    def write() -> None:
        for number in range(40):
            save(place, (0.25, 0.75)[number % 2])
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = set()
    while not done.is_set():
        seen |= {threshold_of(place), read_manifest(place).threshold}
    writer.join()
    assert seen == {0.25, 0.75}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["router"]


def test_a_failed_rename_leaves_the_old_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "router"
    save(place, 0.1)
    rename = Path.rename

    def interrupted(self: Path, target: Path) -> Path:
        if self.name.endswith(".tmp"):
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(bundle_files, "_exchange", lambda one, other: False)
    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save(place, 0.9)
    assert threshold_of(place) == 0.1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["router"]


def test_a_link_to_a_bundle_is_replaced_and_what_it_led_to_stays(way: str, tmp_path: Path) -> None:
    save(tmp_path / "router-1", 0.1)
    (tmp_path / "current").symlink_to(tmp_path / "router-1")
    save(tmp_path / "current", 0.9)
    assert (threshold_of(tmp_path / "current"), threshold_of(tmp_path / "router-1")) == (0.9, 0.1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["current", "router-1"]


def test_a_bundle_that_nobody_replaces_is_read_once_and_refused(tmp_path: Path) -> None:
    place = tmp_path / "router"
    with pytest.raises(BundleMissingError):
        read_bundle(place)
    save(place, 0.1)
    (place / "README.md").write_text("changed")
    with pytest.raises(BundleCorruptError, match="was changed after the export"):
        read_bundle(place)
