"""Whatever stands in a log, it is read, or refused by an error that names the line; nothing else escapes."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from routelearn.data import LogFields, LogOptions, read_request_logs
from routelearn.data.log_formats import parse_line
from routelearn.data.writers import write_records
from routelearn.routers.errors import DataError, InputError

LOGS = Path(__file__).parent / "logs"
WORDS = st.sampled_from(
    ["user", "assistant", "tool", "system", "chat.completion.chunk", "list", "acompletion", "thumbs_up", "1", "", "a"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["role", "content", "text", "type", "messages", "model", "choices", "message", "body", "score"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
FIELDS = (
    "id", "outcome", "time", "query_hash", "query", "model", "propensity", "context", "call_type", "startTime",
    "messages", "response", "request", "custom_id", "body", "error", "url", "metadata", "usage", "status",
    "proxy_server_request", "response_cost", "cache_hit", "feedback", "request_id",
)  # fmt: skip
LINES = st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=14)
GOLDEN = [json.loads(line) for file in sorted(LOGS.glob("*.jsonl")) for line in file.read_text().splitlines()]


@settings(max_examples=400, deadline=None)
@given(LINES, st.sampled_from([LogFields(), LogFields("metadata.a.b", "model", "context.use_case", 5)]))
@example({"id": "a", "outcome": 10**400}, LogFields())
@example({"request": {"messages": []}, "response": [[]], "model": "m"}, LogFields())
def test_a_line_is_read_or_refused_by_name(line: dict[str, Any], fields: LogFields) -> None:
    try:
        parse_line("log", 7, line, fields)
    except DataError as error:
        assert str(error).startswith("log, row 7")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_real_line_with_one_value_replaced(tmp_path: Path, data: st.DataObject) -> None:
    line = json.loads(json.dumps(data.draw(st.sampled_from(GOLDEN))))
    line[data.draw(st.sampled_from(sorted(line)))] = data.draw(VALUES)
    log = tmp_path / "log.jsonl"
    log.write_text(json.dumps(line) + "\n")
    with contextlib.suppress(InputError):
        found = read_request_logs([log], LogOptions(fields=LogFields(outcome="total_tokens", score_scale=1000)))
        if found.records:
            write_records(found.records, tmp_path / "records.jsonl")


@pytest.mark.parametrize(
    "text",
    [
        "not json",
        "[1, 2]",
        "7",
        '{"id": "a"',
        '{"request": {"messages": "' + "x" * 10 + '"}}',
        '{"call_type": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"query_hash": "h", "model": "m", "propensity": 1, "query": [{"role": "user", "content": 7}]}',
        '{"request": {"model": "m", "messages": [{"role": "user", "content": "half \\ud83d"}]}, "response": ""}',
        '{"custom_id": "a", "body": {"input": "x"}}',
        "\x07",
    ],
)
def test_a_bad_line_names_its_place_and_can_be_left_out(tmp_path: Path, text: str) -> None:
    good = json.dumps({"request": {"model": "m", "input": "Hi"}, "response": "Yes", "score": 1})
    log = tmp_path / "log.jsonl"
    log.write_text(f"{good}\n{text}\n{good}\n")
    with pytest.raises(DataError, match=r"log.jsonl, row 2.*expected") as caught:
        read_request_logs([log])
    found = read_request_logs([log], LogOptions(skip_bad=True))
    assert len(found.records) == 2
    assert [str(error) for error in found.bad] == [str(caught.value)]


def test_half_a_character_in_a_nested_text_is_replaced(tmp_path: Path) -> None:
    request = {"model": "m", "messages": [{"role": "user", "content": "\ud83d and \ud83d\ude00"}]}
    log = tmp_path / "log.jsonl"
    log.write_text(json.dumps({"request": json.dumps(request), "response": "Yes", "score": 1}) + "\n")
    records = read_request_logs([log]).records
    assert [one.query for one in records] == ["\ufffd and \U0001f600"]
    write_records(records, tmp_path / "records.parquet")


def test_bytes_that_are_no_text_and_files_that_are_no_logs(tmp_path: Path) -> None:
    latin, cut, empty = tmp_path / "latin.jsonl", tmp_path / "cut.gz", tmp_path / "empty.jsonl"
    latin.write_bytes('{"request": {"model": "m", "input": "caf\xe9"}, "response": ""}\n'.encode("latin-1"))
    with pytest.raises(DataError, match=r"latin.jsonl, row 1"):
        read_request_logs([latin])
    assert read_request_logs([latin], LogOptions(encoding="latin-1")).prompts[0].query == "caf\xe9"
    cut.write_bytes(b"\x1f\x8b\x08\x00\x00\x00\x00\x00")
    with pytest.raises(DataError, match=r"cut.gz"):
        read_request_logs([cut])
    empty.write_text("")
    assert read_request_logs([empty]).counts.lines == 0
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="empty folder"):
        read_request_logs([tmp_path / "folder"])
    with pytest.raises(InputError, match="expected a list of sources"):
        read_request_logs(str(latin))
