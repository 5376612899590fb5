"""Scores by an answer key."""

from __future__ import annotations

import json

import pytest

from routelearn.labelling import ModelAnswer, Prompt, grade_answers
from routelearn.labelling.graders import function_of, grader_of
from routelearn.routers.errors import InputError

SCHEMA = json.dumps({"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}})


def answer(text: str, reference: str | None = None, grader: str | None = None, **fields: object) -> ModelAnswer:
    prompt = Prompt(query="A question?", reference=reference, grader=grader, task="t", split="val", weight=2.0)
    return ModelAnswer(prompt=prompt, model="m", response=text, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("grader", "reference", "text", "score"),
    [
        ("exact", "Paris", " **paris**. ", 1),
        ("exact", "Paris", "Paris, France", 0),
        ("exact", "ﬁne", "fine", 1),
        ("multiple-choice", "C", "It cannot be A. The answer is (C).", 1),
        ("multiple-choice", "(C)", "Answer: B", 0),
        ("multiple-choice", "C", "I do not know.", 0),
        ("number", "1,234.50", r"So it is \boxed{1234.5}", 1),
        ("number", "#### 72", "She sold 71 clips.", 0),
        ("number", "0.5", "1/2", 1),
        ("json", '{"a": 1, "b": [2]}', '```json\n{"b": [2.0], "a": 1}\n```', 1),
        ("json", '{"a": 1}', "no JSON", 0),
        ("regex", r"(?i)\byes\b", "Oh, Yes.", 1),
        ("regex:^yes", None, "yes, it is", 1),
        ("regex:^yes", None, "oh yes", 0),
        ("json-schema", SCHEMA, 'Here: {"name": "Ana"}', 1),
        (f"json-schema:{SCHEMA}", None, '{"name": 3}', 0),
        (f"json-schema:{SCHEMA}", None, "no JSON", 0),
    ],
)
def test_a_grader_compares_the_answer_with_the_key(grader: str, reference: str | None, text: str, score: float) -> None:
    assert grade_answers([answer(text, reference)], grader).records[0].score == score
    assert grade_answers([answer(text, reference, grader)]).records[0].score == score


def test_the_record_keeps_what_is_known_of_the_answer() -> None:
    record = grade_answers([answer("144", "144", cost_usd=0.25)], "number").records[0]
    assert (record.query, record.model, record.response, record.cost_usd) == ("A question?", "m", "144", 0.25)
    assert (record.task, record.split, record.weight, record.source) == ("t", "val", 2.0, "grader number")


@pytest.mark.parametrize(("status", "score"), [("empty", 0), ("refused", 0), ("failed", 0), ("cut", 1)])
def test_what_is_no_answer_scores_0_and_is_counted(status: str, score: float) -> None:
    done = grade_answers([answer("144", "144", status=status), answer("144", "144")], "number")
    assert [record.score for record in done.records] == [score, 1]
    assert done.unusual == {("m", status): 1}


def test_a_function_gets_the_whole_answer() -> None:
    def words(given: ModelAnswer) -> float:
        return len(given.response.split()) / len(str(given.prompt.query).split())

    assert grade_answers([answer("one")], words).records[0].score == 0.5
    assert grade_answers([answer("one")], lambda given: given.response == "one").records[0].score == 1


@pytest.mark.parametrize(
    ("reference", "grader", "message"),
    [
        (None, None, "has no grader"),
        (None, "number", "no answer key"),
        ("none", "number", "the answer key is 'none'; expected a number"),
        ("x", "levenshtein", "grader 'levenshtein'; expected one of exact,"),
        ("x", "number:3", "grader 'number:3'"),
        ("x", "regex:", "grader 'regex:'"),
        ("x", "regex:(", "no regular expression"),
        (None, "json-schema:{", "no JSON schema"),
        (None, 'json-schema:{"type": 3}', "no JSON schema"),
        (None, 'json-schema:{"$ref": "http://127.0.0.1:9/schema.json"}', "expected a schema that stands alone"),
        ("x", "os:getcwd", "grader 'os:getcwd'; expected one of exact,"),
        ("x", lambda _: 2, "the grader gave 2; expected a number from 0 to 1"),
        ("x", lambda _: 1 / 0, "the grader raised ZeroDivisionError"),
        ("x", lambda _: float("nan"), "the grader gave nan"),
    ],
)
def test_an_error_names_the_answer(reference: str | None, grader: object, message: str) -> None:
    with pytest.raises(InputError, match="the answer of 'm' to 'A question") as error:
        grade_answers([answer('{"name": "x"}', reference)], grader)  # type: ignore[arg-type]
    assert message in str(error.value)


def test_a_row_of_a_table_cannot_name_a_python_function() -> None:
    with pytest.raises(InputError, match="expected one of exact"):
        grade_answers([answer("x", "x", "builtins:eval")])


@pytest.mark.parametrize("spec", ["no_such_module_here:f", "json:no_such_name", "json:__name__", ":f"])
def test_a_function_that_is_not_there(spec: str) -> None:
    with pytest.raises(InputError, match="grader"):
        function_of(spec)


def test_a_function_by_its_name() -> None:
    assert function_of("json:dumps") is json.dumps
    assert grader_of("exact")(answer("a", "A")) == 1
