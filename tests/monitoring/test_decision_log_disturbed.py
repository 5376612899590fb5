"""The decision log while others move, remove or truncate its files, and with outcomes of ids that it did not write."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from routelearn.monitoring import decision_log
from routelearn.monitoring.decision_log import DecisionLog
from routelearn.monitoring.log_rows import read_log
from routelearn.routers.decision import Decision

DECISION = Decision("big", 0.7, 0.5, ("big", "small"), "learned", "why")


def moved(path: Path) -> None:
    path.rename(f"{path}-20260101")


def moved_and_made_anew(path: Path) -> None:
    moved(path)
    path.touch()


def replaced(path: Path) -> None:
    shutil.copy(path, f"{path}.copy")
    Path(f"{path}.copy").replace(path)


def truncated(path: Path) -> None:
    os.truncate(path, 0)


def folder_moved_and_made_anew(path: Path) -> None:
    path.parent.rename(f"{path.parent}-old")
    path.parent.mkdir()


DISTURBANCES = [moved, moved_and_made_anew, replaced, Path.unlink, truncated, folder_moved_and_made_anew]


def ids(path: Path) -> list[str]:
    return [row["id"] for row in read_log(path)]


@pytest.mark.parametrize("flush_every", [1, 4])
@pytest.mark.parametrize("disturb", DISTURBANCES)
def test_later_lines_are_at_the_path_whatever_became_of_the_file(
    disturb: Callable[[Path], None], flush_every: int, tmp_path: Path
) -> None:
    path = tmp_path / "logs" / "log"
    path.parent.mkdir()
    log = DecisionLog(path, flush_every=flush_every)
    for number in range(4):
        log.write("q", DECISION, id=f"before {number}")
    disturb(path)
    for number in range(8):
        log.write("q", DECISION, id=f"after {number}")
    log.close()
    later = [f"after {number}" for number in range(8)]
    assert ids(path)[-8:] == later
    assert (log.written, log.failed) == (12, 0)


def test_what_is_counted_as_written_is_on_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = DecisionLog(path, flush_every=10)
    for number in range(15):
        log.write("q", DECISION, id=str(number))
        assert log.written == (10 if number >= 9 else 0) == len(path.read_text().splitlines())
    log.flush()
    assert log.written == 15 == len(ids(path))


def test_lines_without_a_folder_count_as_failed_until_it_is_back(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "log"
    path.parent.mkdir()
    log = DecisionLog(path)
    shutil.rmtree(path.parent)
    for number in range(3):
        log.write("q", DECISION, id=f"lost {number}")
    assert (log.written, log.failed) == (0, 3)
    path.parent.mkdir()
    log.write("q", DECISION, id="back")
    assert (ids(path), log.written, log.failed) == (["back"], 1, 3)


def test_own_rotation_goes_on_after_the_file_was_moved(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = DecisionLog(path, max_bytes=2000, backups=50, flush_every=3)
    for number in range(60):
        if number == 30:
            path.rename(tmp_path / "elsewhere")
        log.write("q", DECISION, id=f"{number:02}")
    log.close()
    found = ids(path)
    assert set(map("{:02}".format, range(30, 60))) <= set(found)
    assert found == sorted(found)
    assert all(file.stat().st_size <= 2000 for file in tmp_path.iterdir())


def test_invented_ids_push_no_decision_out(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = DecisionLog(path, max_bytes=2000, backups=2)
    known = [log.write("q", DECISION) for _ in range(5)]
    for number in range(500):
        assert not log.write_outcome(f"invented {number}", 1.0)
    assert log.write_outcome(known[0], 0.5)
    log.close()
    assert {row["id"]: row.get("outcome") for row in read_log(path)} == {known[0]: 0.5, **dict.fromkeys(known[1:])}
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 6 * 2000


def test_outcomes_of_an_earlier_process_still_join_and_the_newest_counts(tmp_path: Path) -> None:
    path = tmp_path / "log"
    first = DecisionLog(path, clock=lambda: 1.0)
    request = first.write("q", DECISION)
    first.write_outcome(request, 0.0)
    first.close()
    second = DecisionLog(path, clock=lambda: 2.0)
    assert not second.write_outcome(request, 1.0)
    second.close()
    assert [row["outcome"] for row in read_log(path)] == [1.0]


def test_ids_in_memory_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decision_log, "KNOWN_IDS", 3)
    log = DecisionLog(tmp_path / "log")
    written = [log.write("q", DECISION) for _ in range(5)]
    assert [log.write_outcome(request, 1.0) for request in written] == [False, False, True, True, True]
    log.close()
    assert [row["outcome"] for row in read_log(tmp_path / "log")] == [1.0] * 5


def test_a_path_with_the_marks_of_a_pattern_is_read(tmp_path: Path) -> None:
    path = tmp_path / "log[2]*.jsonl"
    log = DecisionLog(path, max_bytes=1, backups=5)
    for number in range(3):
        log.write("q", DECISION, id=str(number))
    log.close()
    assert ids(path) == ["0", "1", "2"]
