"""Grades answers by an answer key: the text, a choice, a number, JSON, a regular expression, a schema, a function."""

from __future__ import annotations

import importlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ..cascade.answer_forms import json_value, multiple_choice, number
from ..data.records import PerformanceRecord
from ..routers.checks import as_number
from ..routers.errors import InputError, require
from .answers import ModelAnswer

#: From an answer, with its prompt and answer key, to its score from 0 to 1. True is 1, False is 0.
Grader = Callable[[ModelAnswer], float]
#: Answers that are worth 0, whatever is in them.
WORTHLESS = frozenset({"empty", "refused", "failed"})
_QUOTES = "\"'`*_“”‘’«»"


@dataclass(frozen=True, kw_only=True)
class Grading:
    """What `grade_answers` did.

    Attributes:
        records: one record an answer, in the order of the answers.
        unusual: number of answers by model and status, of those that are not "ok".

    Example:
        >>> from routelearn.labelling import ModelAnswer, Prompt, grade_answers
        >>> prompt = Prompt(query="How much is 12 * 12?", reference="144", grader="number")
        >>> refused = ModelAnswer(prompt=prompt, model="sim-small", response="I cannot say.", status="refused")
        >>> grading = grade_answers([refused])
        >>> grading.records[0].score, grading.unusual
        (0.0, Counter({('sim-small', 'refused'): 1}))
    """

    records: Sequence[PerformanceRecord]
    unusual: Mapping[tuple[str, str], int]


def grade_answers(answers: Sequence[ModelAnswer], grader: str | Grader | None = None) -> Grading:
    """Score answers by their answer keys.

    An answer that is empty, refused or failed scores 0. An answer that was cut is graded as it is.

    Args:
        answers: the answers, with the answer key in `prompt.reference`.
        grader: "exact", "multiple-choice", "number", "json", "regex", "regex:PATTERN", "json-schema",
            "json-schema:SCHEMA", or a function of an answer; None: the grader that each prompt names.

    Returns:
        A performance record an answer. Its source is the grader.

    Raises:
        InputError: a prompt has no key, or one that its grader cannot read; there is no such grader; or a function
            raises, or gives no number from 0 to 1.

    Example:
        >>> from routelearn.labelling import ModelAnswer, Prompt, grade_answers
        >>> prompt = Prompt(query="How much is 12 * 12?", reference="144", grader="number")
        >>> answer = ModelAnswer(prompt=prompt, model="sim-small", response="12 * 12 = 144.")
        >>> grade_answers([answer]).records[0].score
        1.0
    """
    records = []
    for answer in answers:
        prompt = answer.prompt
        given = grader or prompt.grader
        if not given:
            raise InputError(f"{_named(answer)} has no grader; expected a grader for all answers, or one in each row")
        score = 0.0 if answer.status in WORTHLESS else _score(answer, given)
        records.append(
            PerformanceRecord(
                query=prompt.query,
                model=answer.model,
                score=score,
                cost_usd=answer.cost_usd,
                response=answer.response,
                weight=prompt.weight,
                task=prompt.task,
                split=prompt.split,
                source=f"grader {given.split(':')[0]}" if isinstance(given, str) else "grader function",
            )
        )
    unusual = Counter[tuple[str, str]]((answer.model, answer.status) for answer in answers if answer.status != "ok")
    return Grading(records=records, unusual=unusual)


def _score(answer: ModelAnswer, given: str | Grader) -> float:
    """The score of one answer, and an error that names the answer."""
    try:
        found = grader_of(given)(answer) if isinstance(given, str) else given(answer)
    except InputError as error:
        raise InputError(f"{_named(answer)}: {error}") from error
    except Exception as error:
        raise InputError(f"{_named(answer)}: the grader raised {type(error).__name__}: {error}") from error
    score = float(found) if isinstance(found, bool) else as_number(found)
    if not 0 <= score <= 1:
        raise InputError(f"{_named(answer)}: the grader gave {found!r:.80}; expected a number from 0 to 1")
    return score


def _named(answer: ModelAnswer) -> str:
    return f"the answer of {answer.model!r} to {answer.prompt.query!r:.60} (prompt {answer.prompt.id})"


def _exact(answer: str, reference: str) -> bool:
    return _plain(answer) == _plain(reference)


def _plain(text: str) -> str:
    """A text without case, surrounding quotation marks, marks of bold type, and the full stop at its end."""
    words = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return words.strip(_QUOTES).rstrip(".").strip(_QUOTES + " ")


def _by_form(form: Callable[[str], Any], what: str) -> Callable[[str, str], bool]:
    """Compares what `form` finds in the answer with what it finds in the key."""

    def grade(answer: str, reference: str) -> bool:
        expected = form(reference)
        if expected is None:
            raise InputError(f"the answer key is {reference!r:.80}; expected {what}")
        return bool(form(answer) == expected)

    return grade


def _matches(answer: str, pattern: str) -> bool:
    return _compiled(pattern).search(answer.strip()) is not None


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise InputError(f"{pattern!r:.80} is no regular expression: {error}") from error


def _fits(answer: str, schema: str) -> bool:
    found = json_value(answer)
    validator = _validator(schema)
    if found is None:
        return False
    try:
        return bool(validator.is_valid(json.loads(found)))
    except require("referencing.exceptions", "labels").Unresolvable as error:
        raise InputError(f"the JSON schema refers to {error.ref!r}; expected a schema that stands alone") from error


@lru_cache(maxsize=256)
def _validator(schema: str) -> Any:
    jsonschema: Any = require("jsonschema", "labels")
    referencing: Any = require("referencing", "labels")
    try:
        content = json.loads(schema)
        kind = jsonschema.validators.validator_for(content, default=jsonschema.Draft202012Validator)
        kind.check_schema(content)
    except (ValueError, jsonschema.SchemaError) as error:
        message = getattr(error, "message", error)
        raise InputError(f"{schema!r:.80} is no JSON schema: {message}") from error
    # An empty registry: a schema may come from a file of others, and must not make this machine fetch an address.
    return kind(content, registry=referencing.Registry())


#: Graders that compare the answer with the key; for the last two, what stands behind the colon can replace the key.
_BY_KEY: dict[str, Callable[[str, str], bool]] = {
    "exact": _exact,
    "multiple-choice": _by_form(multiple_choice, "a letter from A to J"),
    "number": _by_form(number, "a number"),
    "json": _by_form(json_value, "a JSON value"),
    "regex": _matches,
    "json-schema": _fits,
}
_WITH_PATTERN = ("regex", "json-schema")


def grader_of(spec: str) -> Grader:
    """The grader of a name, such as "number" or "regex:^yes".

    Raises:
        InputError: there is no such grader.
    """
    name, colon, pattern = spec.partition(":")
    compare = _BY_KEY.get(name.strip())
    if compare is None or (colon and (name not in _WITH_PATTERN or not pattern)):
        raise InputError(
            f"grader {spec!r:.80}; expected one of {', '.join(_BY_KEY)}, regex:PATTERN, json-schema:SCHEMA"
        )

    def grade(answer: ModelAnswer) -> float:
        key = pattern if colon else answer.prompt.reference
        if key is None:
            raise InputError(f"there is no answer key (column reference), which the grader {name!r} needs")
        return float(compare(answer.response, key))

    return grade


def function_of(spec: str) -> Grader:
    """The Python function that "module:function" names.

    Only a command line may name one: a table of answers may come from others, and must not run code.

    Raises:
        InputError: there is no such module or function.
    """
    module_name, _, name = spec.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"grader {spec!r} cannot be imported: {error}; expected module:function") from error
    if not callable(found):
        raise InputError(f"grader {spec!r} is {found!r:.80}; expected a function of an answer")
    return found  # type: ignore[no-any-return]
