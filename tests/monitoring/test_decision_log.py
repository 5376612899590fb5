"""The decision log: what a line holds, rotation, threads, failures, and reading it back."""

from __future__ import annotations

import json
import logging
import stat
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from routelearn.monitoring.decision_log import DecisionLog
from routelearn.monitoring.log_rows import read_log
from routelearn.monitoring.served_call import ServedCall
from routelearn.routers.decision import Decision
from routelearn.routers.errors import InputError

DECISION = Decision(
    "big", 0.7, 0.5, ("big", "small"), "learned", "why", truncated=True, cause="explore", propensity=0.25
)
SECRET = "My name is Ana and my number is 555."


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_holds_the_decision_and_no_prompt(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "log", context_keys=["tier"], clock=lambda: 5.0)
    request_id = log.write(
        SECRET, DECISION, id="r1", policy="share 0.3", latency_s=2e-4, context={"tier": "free", "user": "ana"}
    )
    log.close()
    assert request_id == "r1"
    (row,) = lines(tmp_path / "log")
    assert len(row.pop("query_hash")) == 32
    assert row == {
        "time": 5.0,
        "id": "r1",
        "characters": len(SECRET),
        "model": "big",
        "score": 0.7,
        "threshold": 0.5,
        "candidates": ["big", "small"],
        "source": "learned",
        "cause": "explore",
        "propensity": 0.25,
        "truncated": True,
        "policy": "share 0.3",
        "latency_s": 2e-4,
        "context": {"tier": "free"},
    }
    assert "Ana" not in (tmp_path / "log").read_text()


def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "log", max_bytes=300)
    for _ in range(5):
        log.write("x", DECISION)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


def test_hashes_are_equal_for_equal_prompts_and_one_salt_alone(tmp_path: Path) -> None:
    logs = {
        name: DecisionLog(tmp_path / name, salt=salt)
        for name, salt in {"a": "s", "b": b"s", "c": "t", "d": None, "e": None, "f": "long" * 40}.items()
    }
    hashes = {name: log.query_hash(SECRET) for name, log in logs.items()}
    assert hashes["a"] == hashes["b"] == logs["a"].query_hash(SECRET)
    assert len(set(hashes.values())) == 5
    assert logs["a"].query_hash(SECRET) != logs["a"].query_hash(SECRET.lower())


CHAT = [{"role": "user", "content": "hello"}, {"role": "user", "content": [{"type": "text", "text": "there"}]}]


@pytest.mark.parametrize("query", [CHAT, "\ud800 lone", "é" * 5, "", 7, [{"bad": 1}], "a\nb"], ids=repr)
def test_any_query_is_one_line_and_kept_only_when_asked(query: Any, tmp_path: Path) -> None:
    for name, keep in (("kept", True), ("hashed", False)):
        log = DecisionLog(tmp_path / name, keep_prompts=keep)
        log.write(query, DECISION)
        log.close()
        (row,) = lines(tmp_path / name)
        assert ("query" in row) == keep
        if keep:
            assert row["query"] == query
    assert DecisionLog(tmp_path / "x").write(CHAT, DECISION)


def test_a_chat_counts_the_characters_of_its_turns(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "log")
    log.write(CHAT, DECISION)
    log.close()
    assert lines(tmp_path / "log")[0]["characters"] == len("hello\nthere")


def test_numbers_that_json_cannot_hold_become_null(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "log", keep_prompts=True)
    log.write({"odd": {1, 2}}, replace(DECISION, score=float("nan"), threshold=np.float32(0.5)), latency_s=1e400)  # type: ignore[arg-type]
    log.close()
    (row,) = lines(tmp_path / "log")
    assert (row["score"], row["threshold"], row["latency_s"]) == (None, 0.5, None)


def test_an_outcome_that_is_no_number_is_refused_and_erases_nothing(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "log")
    log.write("x", DECISION, id="1")
    log.write_outcome("1", 0.5)
    with pytest.raises(InputError, match="outcome nan of request 1"):
        log.write_outcome("1", float("nan"))
    log.close()
    assert [row["outcome"] for row in read_log(tmp_path / "log")] == [0.5]


def test_files_are_rotated_by_size_and_the_oldest_go(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "log", max_bytes=2000, backups=2)
    for number in range(50):
        log.write("x", DECISION, id=str(number))
    log.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "log.1", "log.2"]
    assert all(path.stat().st_size <= 2000 for path in tmp_path.iterdir())
    kept = [row["id"] for row in read_log(tmp_path / "log")]
    assert kept == [str(number) for number in range(50 - len(kept), 50)]
    assert 10 < len(kept) < 30


def test_a_log_goes_on_where_it_ended(tmp_path: Path) -> None:
    for name in "ab":
        log = DecisionLog(tmp_path / "log", max_bytes=10_000)
        log.write("x", DECISION, id=name)
        log.close()
    log.write("x", DECISION, id="after closing")
    log.close()
    assert [row["id"] for row in read_log(tmp_path / "log")] == ["a", "b", "after closing"]


def test_more_backups_than_nine_are_read_in_their_order(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "log", max_bytes=1, backups=30)
    for number in range(25):
        log.write("x", DECISION, id=str(number))
    log.close()
    assert [row["id"] for row in read_log(tmp_path / "log")] == [str(number) for number in range(25)]


def test_threads_write_whole_lines(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "log", max_bytes=20_000, backups=200)

    def work(name: int) -> None:
        for number in range(200):
            log.write("x" * number, DECISION, id=f"{name}-{number}")

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    ids = [row["id"] for row in read_log(tmp_path / "log")]
    assert len(ids) == len(set(ids)) == log.written == 1600


def test_lines_are_flushed_one_by_one_or_in_lots(tmp_path: Path) -> None:
    for every in (1, 10):
        log = DecisionLog(tmp_path / str(every), flush_every=every)
        for number in range(15):
            log.write("x", DECISION, id=str(number))
        assert len(lines(tmp_path / str(every))) == (15 if every == 1 else 10)
        log.flush()
        assert len(lines(tmp_path / str(every))) == 15
        log.close()


def test_a_full_disk_fails_no_request_and_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    log = DecisionLog("/dev/full")
    for _ in range(20):
        log.write("x", DECISION)
    log.flush()
    log.close()
    assert log.written == 0
    assert log.failed >= 20
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1


def test_after_a_failure_lines_are_whole_again(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "log", max_bytes=500, backups=1)
    log.write("x", DECISION, id="before")
    (tmp_path / "log.1").mkdir()  # the rotation cannot put the old file there
    (tmp_path / "log.1" / "in the way").touch()
    for number in range(4):
        log.write("x", DECISION, id=str(number))
    assert log.failed > 0
    (tmp_path / "log.1" / "in the way").unlink()
    (tmp_path / "log.1").rmdir()
    log.write("x", DECISION, id="after")
    log.close()
    assert "after" in [row["id"] for row in read_log(tmp_path / "log")]


def test_a_log_that_cannot_be_opened_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be opened"):
        DecisionLog(tmp_path / "nowhere" / "log")
    with pytest.raises(InputError, match="backups 0"):
        DecisionLog(tmp_path / "log", backups=0)
    with pytest.raises(InputError, match="no decision log"):
        read_log(tmp_path / "log")


def test_outcomes_join_their_decisions_also_across_files(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "log", max_bytes=600, backups=50)
    ids = [log.write("x", DECISION) for _ in range(10)]
    log.write_outcome(ids[0], 0.0)
    log.write_outcome(ids[0], 1.0)
    log.write_outcome(ids[7], 0.25)
    log.write_outcome("unknown", 1.0)
    log.close()
    rows = list(read_log(tmp_path / "log"))
    assert [row["id"] for row in rows] == ids
    assert {row["id"]: row["outcome"] for row in rows if "outcome" in row} == {ids[0]: 1.0, ids[7]: 0.25}


def test_broken_lines_are_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = DecisionLog(tmp_path / "log")
    log.write("x", DECISION, id="a")
    log.close()
    with (tmp_path / "log").open("ab") as file:
        file.write(b'{"id": "b", "mod\n\xff\xfe\n[]\n"text"\n\n{"id": 7}\n')
    assert [row["id"] for row in read_log(tmp_path / "log")] == ["a"]
    assert "5 broken lines" in caplog.text


def test_what_the_calls_of_a_request_used_is_a_list_beside_its_outcome(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "log", salt="salt")
    first, second = log.write("a", DECISION, session="s"), log.write("b", DECISION)
    call = ServedCall(model="big", strong="big", input_tokens=9, output_tokens=3, time=1.0, session="s", cost_usd=0.5)
    assert log.write_usage(first, call)
    assert log.write_usage(first, replace(call, further=True))
    assert not log.write_usage("of another process", call)
    log.write_outcome(first, 0.5)
    log.close()
    rows = list(read_log(tmp_path / "log"))
    assert [row["id"] for row in rows] == [first, second]
    assert [one.get("further") for one in rows[0]["usage"]] == [None, True]
    assert rows[0]["session"] == rows[0]["usage"][0]["session"] == log.query_hash("s")
    assert rows[0]["outcome"] == 0.5
    assert "usage" not in rows[1]
    assert len(lines(tmp_path / "log.outcomes")) == 1
    assert "of another process" not in (tmp_path / "log").read_text()


def test_a_row_of_shadow_mode_says_who_served(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "log")
    log.write("a", DECISION, served="small")
    log.write("b", DECISION)
    log.close()
    shadow, plain = read_log(tmp_path / "log")
    assert (shadow["shadow"], shadow["served"], shadow["model"]) == (True, "small", "big")
    assert not {"shadow", "served", "session"} & plain.keys()


def test_a_log_of_an_older_version_is_read_as_before(tmp_path: Path) -> None:
    old = {"time": 1.0, "id": "r", "model": "big", "score": 0.5, "propensity": 1.0, "query_hash": "00"}
    (tmp_path / "log").write_text(json.dumps(old) + '\n{"time": 2.0, "id": "r", "outcome": 1.0}\n')
    assert list(read_log(tmp_path / "log")) == [{**old, "outcome": 1.0}]
