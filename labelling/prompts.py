"""Reads the prompts that models are to be asked, with what is known of each: its task, its answer key, its weight."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..data.columns import find_columns
from ..data.labels import number
from ..data.queries import query_columns, read_query
from ..data.rows import Row, SourceOptions, open_table, source_list
from ..routers.errors import DataError, InputError
from ..routers.query import Query, transcript

#: What a row may say of its prompt.
PROMPT_COLUMNS = ("task", "split", "weight", "reference", "grader")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One prompt of a file.

    Attributes:
        query: a prompt, or a chat as a tuple of ``{"role", "content"}`` messages.
        task: name of the task that the prompt belongs to; None: not known.
        split: "train", "val" or "test"; None: not known.
        weight: weight of the records of this prompt, above 0; 1 / its sampling probability where prompts were chosen.
        reference: the answer key; None: there is none.
        grader: how an answer is compared with the key, as in "number" or "regex:^yes"; None: as the command says.

    Example:
        >>> from routelearn.labelling import Prompt
        >>> Prompt(query="How much is 12 * 12?", reference="144", grader="number").id
        'd8ed46d70ce69416'
    """

    query: Query
    task: str | None = None
    split: str | None = None
    weight: float = 1.0
    reference: str | None = None
    grader: str | None = None

    @property
    def id(self) -> str:
        """The first 16 hexadecimal digits of the SHA-256 of the query: the same prompt has the same id."""
        return prompt_id(self.query)


def prompt_id(query: Query) -> str:
    """The id of a query."""
    content = query if isinstance(query, str) else list(query)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode("ascii")).hexdigest()[:16]


def read_prompts(
    sources: Iterable[str],
    columns: Mapping[str, str] | None = None,
    *,
    on_bad: Callable[[DataError], object] | None = None,
    on_repeat: Callable[[Prompt], object] | None = None,
    options: SourceOptions | None = None,
) -> list[Prompt]:
    """Read prompts from files or hub ids. A prompt that stands there twice is kept once, by its first row.

    Args:
        sources: files or hub ids.
        columns: the table's name of some of our columns, such as ``{"prompt": "question", "reference": "answer"}``.
        on_bad: called with the error of each bad row, which is left out; None: the first one raises.
        on_repeat: called with each prompt that stands in an earlier row too, which is left out.
        options: encoding and format of the files.

    Raises:
        DataError: two rows of one prompt have different answer keys; or a row has no prompt, or a value that is not as
            `Prompt` describes it, and `on_bad` is None.
        InputError: there is no such file, no prompt in it, or its format is unknown.
    """
    found: dict[str, Prompt] = {}
    names = source_list(sources)
    for source in names:
        table = open_table(source, options)
        of_query = query_columns(table.name, table.columns, columns or {})
        mapped = {ours: theirs for ours, theirs in (columns or {}).items() if ours in PROMPT_COLUMNS}
        more = find_columns(table.name, table.columns, mapped, PROMPT_COLUMNS)
        more = {ours: theirs for ours, theirs in more.items() if theirs not in of_query.values()}
        for place, row in table.rows:
            try:
                if isinstance(row, DataError):
                    raise row
                prompt = read_prompt(table.name, place, row, of_query, more)
            except DataError as error:
                if on_bad is None:
                    raise
                on_bad(error)
            else:
                earlier = found.setdefault(prompt.id, prompt)
                if earlier is prompt:
                    continue
                if on_repeat is not None:
                    on_repeat(prompt)
                if earlier.reference is None:
                    found[prompt.id] = replace(earlier, reference=prompt.reference)
                elif prompt.reference not in {None, earlier.reference}:
                    raise DataError(
                        table.name,
                        place,
                        more["reference"],
                        f"{prompt.reference!r:.60}, but an earlier row of this prompt has {earlier.reference!r:.60}",
                        "one answer key for each prompt",
                    )
    if not found:
        raise InputError(f"{', '.join(map(str, names))}: no prompts; expected at least one")
    return list(found.values())


def read_prompt(name: str, place: int, row: Row, of_query: Mapping[str, str], more: Mapping[str, str]) -> Prompt:
    """The prompt of a row.

    Args:
        name: name of the table, for messages.
        place: number of the row, for messages.
        row: the values by column.
        of_query: the columns of the query, from `query_columns`.
        more: the table's name of each of `PROMPT_COLUMNS` that it has.

    Raises:
        DataError: a value is not as `Prompt` describes it.
    """
    read = read_query(name, place, row, of_query)
    query = read.query
    if not transcript(query).strip():
        raise DataError(name, place, read.column, "the prompt is empty", "a text")
    values: dict[str, Any] = {ours: row.get(theirs) for ours, theirs in more.items()}
    texts = {ours: _text(value) for ours, value in values.items()}
    weight = values.pop("weight", None)
    try:
        texts["weight"] = 1.0 if texts.get("weight") is None else number(weight, 1e-9, 1e9)  # type: ignore[assignment]
    except InputError as error:
        raise DataError(name, place, more["weight"], str(error), "a number above 0") from error
    return Prompt(query=query, **texts)  # type: ignore[arg-type]


def _text(value: object) -> str | None:
    """A value as text; None: the cell is empty. An answer key or a schema that is an object is its JSON."""
    if value is None or value != value:  # noqa: PLR0124 - NaN
        return None
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else str(value)
