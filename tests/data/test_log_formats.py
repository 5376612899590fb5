"""Request logs of each format, as the programs themselves write them.

The lines in logs/ are those that LiteLLM's callbacks and its spend log got (tests/helpers/litellm_logs.py).
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response

from routelearn import Decision, Model
from routelearn.data import LogFields, LogOptions, LogRecords, read_request_logs
from routelearn.data.writers import write_rows
from routelearn.monitoring import DecisionLog
from routelearn.routers.errors import DataError, InputError
from routelearn.routers.query import turns

LOGS = Path(__file__).parent / "logs"
VERSIONS = ("1.110.2", "1.80.17")
ASK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is 2 plus 2?"}]


def written(path: Path, *lines: Any) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def completion(text: str = "It is 4.", **more: Any) -> dict[str, Any]:
    """A response as the official client dumps it."""
    content = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "gpt-4o-2024-08-06",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500},
        **more,
    }
    return ChatCompletion.model_validate(content).model_dump(mode="json")


def prompts(found: LogRecords) -> list[str]:
    return ["\n".join(turns(prompt.query)) for prompt in found.prompts]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_log_of_litellm(version: str) -> None:
    found = read_request_logs([LOGS / f"litellm-{version}.jsonl"])
    counts = found.counts
    assert (counts.lines, counts.failed, counts.without_text, dict(counts.other)) == (9, 1, 1, {"aembedding": 1})
    asked = prompts(found)
    assert len(asked) == 6
    assert {"What is 2 plus 2?", "Stream it", "Through the router", "Say it with responses", "Weather?\nRain"} <= set(
        asked
    )
    assert not any("redacted" in text for text in asked)
    (record,) = found.records  # the one with feedback in the metadata of its request
    assert (record.query, record.model, record.score) == (tuple(ASK), "gpt-4o-mini", 1.0)
    assert (record.response, record.cost_usd, record.weight, record.source) == ("It is 4.", 1.35e-05, 1.0, "log")


@pytest.mark.parametrize("version", VERSIONS)
def test_the_spend_log_of_litellm(version: str) -> None:
    found = read_request_logs([LOGS / f"litellm-spend-{version}.jsonl"])
    counts = found.counts
    assert (counts.lines, counts.requests, dict(counts.other)) == (8, 7, {"aembedding": 1})
    assert counts.without_text == 5  # redacted, without a proxy's request, or cut to fit the database
    assert [(turns(one.query), one.score, one.response) for one in found.records] == [
        (["What is 2 plus 2?"], 1.0, "It is 4."),
        (["Weather?", "Rain"], 0.0, "It rains."),
    ]


def test_both_logs_of_litellm_are_one(tmp_path: Path) -> None:
    log, spend = (LOGS / f"litellm-{kind}{VERSIONS[0]}.jsonl" for kind in ("", "spend-"))
    found = read_request_logs([log, spend])
    assert found.counts.requests == 7
    assert found.counts.repeated == 7
    assert [(turns(one.query), one.score) for one in found.records] == [
        (["What is 2 plus 2?"], 1.0),
        (["Weather?", "Rain"], 0.0),
    ]


def test_the_name_of_the_group_is_the_model_unless_another_field_is_named() -> None:
    log = LOGS / f"litellm-{VERSIONS[0]}.jsonl"
    options = LogOptions(fields=LogFields(outcome="completion_tokens", score_scale=1000))
    models = {str(one.query): one.model for one in read_request_logs([log], options).records}
    assert models["Stream it"] == "gpt-4o"
    (routed,) = [model for query, model in models.items() if "Through the router" in query]
    assert routed == "small"
    fields = LogFields(outcome="completion_tokens", score_scale=1000, model="model")
    aliases = {"openai/gpt-4o-mini": "mini"}
    records = read_request_logs([log], LogOptions(fields=fields, aliases=aliases)).records
    assert [one.model for one in records if "Through the router" in str(one.query)] == ["mini"]


def test_the_spend_log_as_a_table_of_a_database(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (LOGS / f"litellm-spend-{VERSIONS[0]}.jsonl").read_text().splitlines()]
    for name in ("spend.csv", "spend.parquet"):
        texts = [{key: None if value is None else str(value) for key, value in row.items()} for row in rows]
        write_rows(texts, list(texts[0]), tmp_path / name)
        assert [one.score for one in read_request_logs([tmp_path / name]).records] == [1.0, 0.0], name


def test_a_folder_with_one_file_a_request(tmp_path: Path) -> None:
    lines = (LOGS / f"litellm-{VERSIONS[0]}.jsonl").read_text().splitlines()
    for number, line in enumerate(lines):
        folder = tmp_path / "team" / f"2026-01-{number + 1:02}"
        folder.mkdir(parents=True)
        (folder / f"{number}.json").write_text(line)
    assert len(read_request_logs([tmp_path]).prompts) == 6


def test_requests_with_their_responses(tmp_path: Path) -> None:
    line = {"request": {"model": "gpt-4o", "messages": ASK}, "response": completion(), "feedback": "thumbs_up"}
    log = written(tmp_path / "requests.jsonl", line)
    (record,) = read_request_logs([log], LogOptions(prices=[Model("gpt-4o", 2.5, 10.0)])).records
    assert (record.query, record.model, record.score, record.response) == (tuple(ASK), "gpt-4o", 1.0, "It is 4.")
    assert record.cost_usd == pytest.approx((1000 * 2.5 + 500 * 10) / 1e6)
    assert read_request_logs([log]).records[0].cost_usd is None  # no price is known
    stated = written(tmp_path / "stated.jsonl", {**line, "cost_usd": 0.25})
    assert read_request_logs([stated], LogOptions(prices=[Model("gpt-4o", 2.5, 10.0)])).records[0].cost_usd == 0.25


def test_requests_as_json_texts_and_of_the_responses_api(tmp_path: Path) -> None:
    response = Response.model_construct(
        id="resp_1", object="response", model="gpt-5", output=[{"type": "reasoning", "summary": []}], error=None
    ).model_dump(mode="json")
    response["output"].append({"type": "message", "content": [{"type": "output_text", "text": "Paris"}]})
    request = {"model": "gpt-5", "instructions": "Be kind.", "input": "Capital of France?"}
    log = written(
        tmp_path / "a.jsonl",
        {
            "request": json.dumps(request),
            "response": json.dumps(response),
            "score": "0.5",
            "timestamp": "2026-01-01T00:00:00Z",
        },
    )
    (record,) = read_request_logs([log]).records
    assert (record.query, record.model, record.score, record.response) == ("Capital of France?", "gpt-5", 0.5, "Paris")


def test_chunks_of_a_stream_on_one_line_or_on_many(tmp_path: Path) -> None:
    def chunk(text: str | None) -> dict[str, Any]:
        choices = [{"index": 0, "delta": {"content": text}, "finish_reason": None}]
        content = {"id": "s1", "created": 1, "model": "m", "object": "chat.completion.chunk", "choices": choices}
        return ChatCompletionChunk.model_validate(content).model_dump(mode="json")

    chunks = [chunk("Two "), chunk("plus "), chunk("two."), chunk(None)]
    wire = "".join(f"data: {json.dumps(one)}\n\n" for one in chunks) + "data: [DONE]\n"

    def line(response: Any, **more: Any) -> dict[str, Any]:
        return {"request": {"model": "m", "messages": ASK}, "response": response, **more}

    kinds = {
        "one": [line(chunks, score=1)],
        "wire": [line(wire, score=1)],
        "many": [*map(line, chunks[:-1]), line(chunks[-1], score=1)],
    }
    for name, lines in kinds.items():
        (record,) = read_request_logs([written(tmp_path / f"{name}.jsonl", *lines)]).records
        assert record.response == "Two plus two.", name


def test_a_batch_and_its_input(tmp_path: Path) -> None:
    asked = [
        {
            "custom_id": f"q{n}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": model, "messages": ASK},
        }
        for model in ("gpt-4o", "small")
        for n in range(2)
    ]
    answered = [
        {
            "id": f"batch_req_{model}{n}",
            "custom_id": f"q{n}",
            "response": {
                "status_code": status,
                "request_id": f"r{model}{n}",
                "body": completion("Four", id=f"c{model}{n}", model=f"{model}-2024-08-06"),
            },
            "error": None,
        }
        for model in ("gpt-4o", "small")
        for n, status in enumerate((200, 429))
    ]
    written(tmp_path / "in.jsonl", *asked)
    written(tmp_path / "out.jsonl", *answered)
    (tmp_path / "scores.csv").write_text("custom_id,model,score\nq0,gpt-4o,1\nq0,small,0.25\n")
    options = LogOptions(outcomes=tmp_path / "scores.csv")
    found = read_request_logs([tmp_path / "out.jsonl", tmp_path / "in.jsonl"], options)
    assert [(one.model, one.score, one.response) for one in found.records] == [
        ("gpt-4o", 1.0, "Four"),
        ("small", 0.25, "Four"),
    ]
    assert found.counts.failed == 2
    assert read_request_logs([tmp_path / "out.jsonl"]).counts.without_text == 2
    (tmp_path / "scores.csv").write_text("custom_id,score\nq0,1\n")
    with pytest.raises(
        DataError, match=r"scores.csv, row 1, column 'model': 'q0' names requests of the models gpt-4o, s"
    ):
        read_request_logs([tmp_path / "out.jsonl", tmp_path / "in.jsonl"], options)


def test_a_name_that_two_requests_of_batches_have_is_refused(tmp_path: Path) -> None:
    def asked(text: str) -> dict[str, Any]:
        return {"custom_id": "q", "url": "/v1/chat/completions", "body": {"model": "m", "input": text}}

    answer = {"custom_id": "q", "response": {"status_code": 200, "body": completion(model="m")}, "error": None}
    log = written(tmp_path / "all.jsonl", asked("one"), asked("two"), answer)
    with pytest.raises(DataError, match=r"row 3, column 'custom_id': 'q' names several requests .*row 1 and .*row 2"):
        read_request_logs([log])


def decided(log: DecisionLog, query: Any, model: str, **more: Any) -> str:
    return log.write(
        query, Decision(model, 0.5, 0.5, (model,), "learned", "threshold", **more), context={"use_case": "chat"}
    )


def test_a_decision_log_with_its_rotated_and_compressed_files(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    log = DecisionLog(path, keep_prompts=True, max_bytes=600, backups=50, context_keys=("use_case",))
    for number in range(9):
        name = decided(log, f"Question {number}", "big" if number % 2 else "small")
        log.write_outcome(name, 1.0 if number % 2 else 0.0)
    log.close()
    later = DecisionLog(path, max_bytes=1 << 20)
    later.write_outcome(name, 0.75)  # of an earlier process: in decisions.jsonl.outcomes
    later.close()
    old = tmp_path / "decisions.jsonl.2"
    with gzip.open(f"{old}.gz", "wb") as packed:
        packed.write(old.read_bytes())
    old.unlink()
    found = read_request_logs([path])
    assert [one.query for one in found.records] == [f"Question {number}" for number in range(9)]
    assert [one.score for one in found.records] == [0, 1, 0, 1, 0, 1, 0, 1, 0.75]
    assert {one.task for one in found.records} == {"chat"}
    everything = sorted(tmp_path.glob("decisions.jsonl*"))
    assert len(everything) > 3
    assert read_request_logs(everything).records == found.records  # no file is read twice
    of_folder = read_request_logs([tmp_path]).records
    assert sorted(of_folder, key=str) == sorted(found.records, key=str)
    with path.open("a") as file:
        file.write('{"time": 1, "id": "cut by a ki')
    again = read_request_logs([path])
    assert (again.records, again.counts.broken) == (found.records, 1)


def test_unknown_lines_name_file_and_line_and_what_was_expected(tmp_path: Path) -> None:
    good = {"request": {"model": "m", "messages": ASK}, "response": completion(), "score": 1}
    log = written(tmp_path / "mixed.log", good, {"level": "info", "message": "started"}, good)
    with pytest.raises(
        DataError, match=r"mixed.log, row 2: a line of no known kind, with the fields: level, message; "
    ):
        read_request_logs([log])
    found = read_request_logs([log], LogOptions(skip_bad=True))
    assert (len(found.records), len(found.bad), found.bad[0].row) == (1, 1, 2)
    with pytest.raises(InputError, match=r"nothing.jsonl: no such file"):
        read_request_logs([tmp_path / "nothing.jsonl"])
