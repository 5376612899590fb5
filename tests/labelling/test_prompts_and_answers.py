"""Prompts and answers: what is read from files of others, and that what is written is read again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routelearn.labelling import ModelAnswer, Prompt, Reply, read_answers, read_prompts, write_answers
from routelearn.routers.errors import DataError, InputError


def _lines(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_prompts_keep_their_task_key_and_weight_and_repeated_ones_are_folded(tmp_path: Path) -> None:
    chat = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "?"},
    ]
    path = _lines(
        tmp_path / "p.jsonl",
        [
            {"prompt": "1 + 1?", "task": "sums", "reference": 2, "weight": 3, "split": "test", "grader": "number"},
            {"prompt": "1 + 1?", "task": "other"},
            {"messages": chat},
        ],
    )
    first, second = read_prompts([path])
    assert first == Prompt(query="1 + 1?", task="sums", reference="2", weight=3.0, split="test", grader="number")
    assert isinstance(second.query, tuple)
    assert second.reference is None


def test_a_column_answer_of_prompts_is_the_key_when_it_is_mapped(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("question,answer\n1 + 1?,2\n")
    (prompt,) = read_prompts([str(path)], {"reference": "answer"})
    assert (prompt.query, prompt.reference) == ("1 + 1?", "2")


@pytest.mark.parametrize("weight", [0, -1, "many", "nan"])
def test_a_weight_that_is_none_names_the_row(tmp_path: Path, weight: Any) -> None:
    path = _lines(tmp_path / "p.jsonl", [{"prompt": "a"}, {"prompt": "b", "weight": weight}])
    with pytest.raises(DataError, match=r"row 2.*weight.*above 0"):
        read_prompts([path])


def test_no_prompts_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("prompt\n")
    with pytest.raises(InputError, match="no prompts"):
        read_prompts([str(tmp_path / "p.csv")])


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=20).filter(
                lambda text: text.strip() and text.lstrip()[:1] != "["
            ),
            st.text(st.characters(blacklist_categories=["Cs"]), max_size=20),
            st.integers(0, 10**6),
        ),
        min_size=1,
        max_size=5,
        unique_by=lambda row: row[0],
    ),
    st.sampled_from(["parquet", "jsonl"]),
)
def test_what_is_written_is_read_again(tmp_path_factory: Any, rows: list[tuple[str, str, int]], suffix: str) -> None:
    answers = [
        ModelAnswer.of(
            Prompt(query=query, reference="k", weight=2.0),
            Reply(
                candidate="m", text=text, input_tokens=count, cost_usd=count / 1e6, finish_reason="stop", latency_s=0.5
            ),
        )
        for query, text, count in rows
    ]
    path = tmp_path_factory.mktemp("answers") / f"a.{suffix}"
    write_answers(answers, path)
    assert read_answers([str(path)]) == answers


def test_answers_of_others_need_a_prompt_a_model_and_a_response(tmp_path: Path) -> None:
    path = _lines(tmp_path / "a.jsonl", [{"question": "1 + 1?", "model": "m", "output": "2"}])
    (answer,) = read_answers([path])
    assert (answer.prompt.query, answer.model, answer.response, answer.status) == ("1 + 1?", "m", "2", "ok")
    with pytest.raises(DataError, match=r"response.*no such column"):
        read_answers([_lines(tmp_path / "b.jsonl", [{"prompt": "1 + 1?", "model": "m"}])])
    with pytest.raises(DataError, match="answers this prompt in an earlier row"):
        read_answers([path, path])


@pytest.mark.parametrize(
    ("text", "reason", "status"),
    [
        ("fine", "stop", "ok"),
        ("fine", None, "ok"),
        ("half of", "length", "cut"),
        ("  ", "stop", "empty"),
        ("", "length", "empty"),
        ("", "content_filter", "refused"),
        ("I cannot", "refusal", "refused"),
    ],
)
def test_the_status_of_an_answer(text: str, reason: str | None, status: str) -> None:
    assert ModelAnswer.of(Prompt(query="q"), Reply(candidate="m", text=text, finish_reason=reason)).status == status


def test_a_question_that_a_service_refuses_is_a_failed_answer() -> None:
    assert ModelAnswer.of(Prompt(query="q"), Reply(candidate="m", error="too long")).status == "failed"


def test_two_answer_keys_of_one_prompt_are_an_error_and_one_that_comes_later_is_taken(tmp_path: Path) -> None:
    path = _lines(tmp_path / "p.jsonl", [{"prompt": "a", "reference": None}, {"prompt": "a", "reference": "7"}])
    assert read_prompts([path])[0].reference == "7"
    path = _lines(tmp_path / "q.jsonl", [{"prompt": "a", "reference": "7"}, {"prompt": "a", "reference": "8"}])
    with pytest.raises(DataError, match=r"row 2.*'8', but an earlier row of this prompt has '7'"):
        read_prompts([path])


@pytest.mark.parametrize("prompt", ["", "   ", "\n"])
def test_an_empty_prompt_is_not_asked(tmp_path: Path, prompt: str) -> None:
    with pytest.raises(DataError, match="the prompt is empty"):
        read_prompts([_lines(tmp_path / "p.jsonl", [{"prompt": prompt}])])
