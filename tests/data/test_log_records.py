"""From logged calls to records: which lines count, what the router knew, outcomes, and weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.request_logs import call, decide, log_of
from hypothesis import given, settings
from hypothesis import strategies as st

from routelearn.data import LogFields, LogOptions, read_request_logs
from routelearn.data.log_messages import logged_query
from routelearn.monitoring import DecisionLog
from routelearn.routers.errors import DataError, InputError
from routelearn.routers.query import turns

TEXTS = st.text("abc ", min_size=1, max_size=8).filter(str.strip)


# ---- what the router knew


def test_the_query_ends_with_the_last_user_turn_and_keeps_results_of_tools(tmp_path: Path) -> None:
    tools = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather?", "routelearn": {"score": 0.9}},
        {"role": "assistant", "content": None, "tool_calls": tools},
        {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "Rain"}]},
    ]
    line = {
        "request": {"model": "m", "messages": messages, "metadata": {"routelearn": "weak"}},
        "response": "It rains.",
    }
    answered = {"request": {"model": "m", "messages": [*messages, {"role": "assistant", "content": "It rains."}]}}
    found = read_request_logs(
        [log_of(tmp_path, {**line, "score": 1}, {**answered, "response": "It rains.", "score": 1})]
    )
    whole, cut = (record.query for record in found.records)
    assert turns(whole) == ["Weather?", "Rain"]
    assert not isinstance(whole, str)
    assert [message["role"] for message in whole] == ["system", "user", "assistant", "tool"]
    assert "routelearn" not in json.dumps(whole)
    assert turns(cut) == ["Weather?"]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["system", "user", "assistant", "tool"]), TEXTS), min_size=1, max_size=6))
def test_the_query_never_contains_the_response_and_is_what_routers_read(chat: list[tuple[str, str]]) -> None:
    messages = [{"role": role, "content": text} for role, text in chat]
    response = {"role": "assistant", "content": "the RESPONSE"}
    query = logged_query({"model": "m", "messages": [*messages, response]})
    assert "RESPONSE" not in str(query)
    asked = logged_query({"messages": messages})
    if query is not None:
        assert asked is not None
    if messages[-1]["role"] == "user":
        assert query == asked
        assert turns(query or "") == turns(messages)


def test_a_chat_of_one_turn_is_a_prompt(tmp_path: Path) -> None:
    (record,) = read_request_logs([log_of(tmp_path, call("Hi", score=1))]).records
    assert record.query == "Hi"


# ---- which lines count


def test_lines_of_one_request_are_folded_and_the_last_answer_counts(tmp_path: Path) -> None:
    log = log_of(
        tmp_path,
        call("Hi", id="a", answer="first", score=0, at=1),
        call("Hi", id="a", answer="second", at=2),
        {"request": {"model": "m"}, "id": "a", "error": {"message": "late"}, "time": 3},
        call("Hi", id="b", status_code=500, score=1),
        call("Hi", id="c", status="failure", score=1),
    )
    found = read_request_logs([log])
    assert [(one.response, one.score) for one in found.records] == [("second", 0.0)]
    assert (found.counts.repeated, found.counts.failed, found.counts.requests) == (2, 2, 1)


def test_numbers_that_are_counted_anew_in_each_file_are_no_ids_of_one_request(tmp_path: Path) -> None:
    lines = [call("Hi", id=1, score=1), call("Ho", id=1, score=0), call("Hi", id=1, answer="again")]
    log = log_of(tmp_path, *lines)
    found = read_request_logs([log])
    assert [(one.query, one.score, one.response) for one in found.records] == [("Hi", 1.0, "again"), ("Ho", 0.0, "Yes")]
    table = tmp_path / "scores.csv"
    table.write_text("id,score\n1,1\n")
    with pytest.raises(DataError, match="'1' names 2 requests with different queries; expected the id of one request"):
        read_request_logs([log], LogOptions(outcomes=table))


@pytest.mark.parametrize(
    ("times", "outcomes", "kept"),
    [
        ((0, 50, 100), (1, None, None), [1]),  # a row of retries: each within 60 s of the one before
        ((0, 50, 100), (1, 0, None), [0]),
        ((100, 0, 50), (1, 0, None), [1]),  # by their times, not by their lines
        ((0, 61, 200), (1, 0, 1), [1, 0, 1]),
        ((None, None, None), (1, 0, 1), [1, 0, 1]),
    ],
)
def test_retries_are_folded_to_the_last_with_an_outcome(
    tmp_path: Path, times: tuple[float | None, ...], outcomes: tuple[float | None, ...], kept: list[float]
) -> None:
    lines = [call("Hi", at=at, score=score) for at, score in zip(times, outcomes, strict=True)]
    others = [call("Other", at=0, score=0.25), call("Hi", "n", at=0, score=0.5)]
    found = read_request_logs([log_of(tmp_path, *lines, *others)])
    assert [one.score for one in found.records] == [*kept, 0.25, 0.5]
    assert found.counts.retries == 5 - len(found.records)
    apart = read_request_logs([log_of(tmp_path, *lines)], LogOptions(retry_window_s=0))
    assert apart.counts.retries == 0


def test_prompts_are_counted_also_without_outcomes(tmp_path: Path) -> None:
    lines = [call("Hi", at=0), call("Hi", at=1000), call("Ho", at=0, score=1), call("No", status_code=429)]
    found = read_request_logs([log_of(tmp_path, *lines)])
    assert [(one.query, one.count) for one in found.prompts] == [("Hi", 2), ("Ho", 1)]
    assert found.counts.without_outcome == 2
    assert len(found.records) == 1


# ---- outcomes


@pytest.mark.parametrize(
    ("place", "value", "score"),
    [
        ("metadata.feedback.score", 0.5, 0.5),
        ("metadata.score", "1", 1.0),
        ("feedback", ":thumbs-down:", 0.0),
        ("feedback", {"rating": "👍🏽"}, 1.0),
        ("outcome", True, 1.0),
        ("request.metadata.score", "0.25", 0.25),
        ("metadata.feedback", None, None),
    ],
)
def test_outcomes_on_the_line(tmp_path: Path, place: str, value: object, score: float | None) -> None:
    line = call("Hi")
    inner = line
    *folders, name = place.split(".")
    for folder in folders:
        inner = inner.setdefault(folder, {})
    inner[name] = value
    assert [one.score for one in read_request_logs([log_of(tmp_path, line)]).records] == (
        [] if score is None else [score]
    )


def test_another_field_and_scale_for_outcomes(tmp_path: Path) -> None:
    log = log_of(tmp_path, call("Hi", score=1, review={"stars": "4"}, team="math"))
    fields = LogFields(outcome="review.stars", score_scale=5, task="team")
    (record,) = read_request_logs([log], LogOptions(fields=fields)).records
    assert (record.score, record.task) == (0.8, "math")
    with pytest.raises(
        DataError, match=r"row 1, column 'review.stars': 4.0 is not from 0 to 1.*expected a number from"
    ):
        read_request_logs([log], LogOptions(fields=LogFields(outcome="review.stars")))


def test_a_table_of_outcomes_by_ids(tmp_path: Path) -> None:
    log = log_of(tmp_path, call("Hi", id="a", score=0), call("Ho", request_id="b"), call("He", id="c"))
    table = tmp_path / "thumbs.csv"
    table.write_text("trace,thumb\na,up\nb,down\nb,up\nz,up\nc,\n")
    found = read_request_logs([log], LogOptions(outcomes=table, columns={"id": "trace", "score": "thumb"}))
    assert [(one.query, one.score) for one in found.records] == [("Hi", 1.0), ("Ho", 1.0)]
    assert (found.counts.unmatched, found.counts.without_outcome) == (1, 1)
    with pytest.raises(DataError, match=r"column 'id': no such column among .*--map id=COLUMN"):
        read_request_logs([log], LogOptions(outcomes=table))
    table.write_text("id,score\na,perhaps\n")
    with pytest.raises(DataError, match=r"thumbs.csv, row 1, column 'score': 'perhaps' is not a number"):
        read_request_logs([log], LogOptions(outcomes=table))


# ---- decision logs with hashes


def test_prompts_are_joined_by_the_hashes_of_a_decision_log(tmp_path: Path) -> None:
    log, prompts = tmp_path / "decisions.jsonl", tmp_path / "prompts.jsonl"
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    with_salt = DecisionLog(log, salt="pepper")
    for query, model in (("How much?", "big"), (chat, "small"), ("not in the table", "small")):
        with_salt.write_outcome(decide(with_salt, query, model), 1.0)
    hashed = with_salt.query_hash("How much?")
    with_salt.close()
    prompts.write_text(json.dumps({"prompt": "How much?"}) + "\n" + json.dumps({"messages": chat}) + "\n")
    assert read_request_logs([log]).counts.hashed == 3
    found = read_request_logs([log], LogOptions(prompts=prompts, salt="pepper"))
    assert [(turns(one.query), one.model) for one in found.records] == [(["How much?"], "big"), (["Hi"], "small")]
    assert (found.counts.without_text, found.counts.hashed) == (1, 1)
    assert not read_request_logs([log], LogOptions(prompts=prompts, salt="another")).records
    with pytest.raises(InputError, match="has no column 'query_hash', and hashes of a decision log are keyed"):
        read_request_logs([log], LogOptions(prompts=prompts))
    prompts.write_text(json.dumps({"query_hash": hashed, "prompt": "How much?"}) + "\n")
    (record,) = read_request_logs([log], LogOptions(prompts=prompts)).records
    assert record.query == "How much?"


def test_outcomes_by_the_hash_of_a_query_need_the_model_where_two_answered(tmp_path: Path) -> None:
    path, table = tmp_path / "decisions.jsonl", tmp_path / "scores.csv"
    log = DecisionLog(path, salt="pepper", keep_prompts=True)
    for model in ("big", "small"):
        decide(log, "How much?", model)
    hashed = log.query_hash("How much?")
    log.close()
    table.write_text(f"query_hash,model,score\n{hashed},big,1\n{hashed},small,0\n")
    found = read_request_logs([path], LogOptions(outcomes=table))
    assert [(one.model, one.score) for one in found.records] == [("big", 1), ("small", 0)]
    table.write_text(f"query_hash,score\n{hashed},1\n")
    with pytest.raises(DataError, match="names requests of the models big, small; expected a column model"):
        read_request_logs([path], LogOptions(outcomes=table))


@pytest.mark.parametrize(
    "options",
    [
        {"most_weight": 0.5},
        {"retry_window_s": -1.0},
        {"fields": LogFields(score_scale=0)},
        {"most_weight": float("nan")},
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="expected"):
        LogOptions(**options)
