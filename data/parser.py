"""Turns rows into records: preferences, performances, or wide rows with one score column a model."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from ..routers.errors import DataError, InputError
from ..routers.query import json_list, parse_messages, split_answer
from .columns import find_columns
from .labels import CensoredPreference, number, one_hot_preference, score_of, tie_share_of, winner_preference
from .queries import QUERY_COLUMNS, ReadQuery, query_columns, read_query
from .records import LEAST_WEIGHT, MOST_WEIGHT, PerformanceRecord, PreferenceRecord, Record
from .rows import Row, SourceOptions
from .wide import WideColumns

Kind = Literal["preference", "performance", "wide"]
KINDS: Final[tuple[Kind, ...]] = ("preference", "performance", "wide")

#: Our columns besides those of queries.
_COLUMNS = (
    *("model_a", "model_b", "preference", "winner", "winner_model_a", "winner_model_b", "winner_tie", "strong"),
    *("strong_win", "model", "score", "cost_usd", "response", "response_a", "response_b", "conversation_b"),
    *("weight", "task", "split", "split_hint"),
)
_SPLITS = {"validation": "val", "valid": "val", "dev": "val", "eval": "test"}
_SEE = "see --map winner=THEIR_COLUMN"
_LABELS = (("preference",), ("winner",), ("winner_model_a", "winner_model_b", "winner_tie"), ("strong_win", "strong"))


@dataclass(frozen=True)
class ReadOptions:
    """How to read a table.

    Attributes:
        kind: kind of the table; None: the columns tell it.
        columns: the table's name of each of our columns, such as ``{"prompt": "question"}``.
        aliases: our name of each of the table's models, such as ``{"gpt4_1106_preview": "gpt-4-1106-preview"}``.
        models: read only these models: these score columns of a wide table, or the records of a long table that name
            no other model. None: all models.
        split: read only rows of this split; None: all rows.
        tie_share: P(tie | strong did not win), for rows that say only that strong did not win; None: estimated from
            the file.
        skip_bad: leave bad rows out and collect their errors, instead of raising the first.
        encoding: encoding of text files; None: by their byte order mark, otherwise UTF-8.
        format: format of the files; None: by their suffix.
        score_scale: the highest score that there can be; scores are divided by it.

    Example:
        >>> from routelearn.data import ReadOptions, read_records
        >>> options = ReadOptions(models=("sim-small", "sim-max"))
        >>> {record.model for record in read_records("records.jsonl", options).records} == set(options.models)
        True
    """

    kind: Kind | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    models: tuple[str, ...] | None = None
    split: str | None = None
    tie_share: float | None = None
    skip_bad: bool = False
    encoding: str | None = None
    format: str | None = None
    score_scale: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a scale that is no number above 0."""
        if not (math.isfinite(self.score_scale) and self.score_scale > 0):
            raise InputError(f"--score-scale {self.score_scale}; expected the highest score there can be, above 0")

    @property
    def source(self) -> SourceOptions:
        """What the files do not say of themselves."""
        return SourceOptions(self.encoding, self.format)


class RecordParser:
    """Turns the rows of one table into records. docs/data.md lists the columns."""

    def __init__(self, name: str, columns: Sequence[str], options: ReadOptions) -> None:
        self._name = name
        self._options = options
        self._columns = frozenset(columns)
        self._found = find_columns(name, columns, options.columns, (*QUERY_COLUMNS, *_COLUMNS))
        self.kind: Kind = options.kind or self._kind_of(columns)
        self._require_columns(columns)
        self._query_columns = query_columns(name, columns, options.columns)
        self._queries: dict[tuple[str, str], ReadQuery] = {}
        self._kept = {options.aliases.get(name, name) for name in options.models or ()}
        self._named: set[str] = set()
        self.wide = WideColumns(
            columns if self.kind == "wide" else (), options.models, self._found, options.score_scale
        )
        if self.kind == "wide" and columns and not any(map(self.wide.may_be_model, columns)):
            expected = f"model_a, model_b and winner; or model and score; or a column of scores for each model; {_SEE}"
            raise DataError(name, None, None, f"no labels in the columns {list(columns)}", expected)
        self._pending: list[tuple[PreferenceRecord, CensoredPreference]] = []
        self._known_of_strong: list[float] = []

    def _column(self, ours: str) -> str:
        return self._found.get(ours, ours)

    def _has(self, ours: str) -> bool:
        return ours in self._found

    def _kind_of(self, columns: Sequence[str]) -> Kind:
        if self._options.models and self._columns.issuperset(self._options.models):
            return "wide"
        if self._has("model_a") or self._has("model_b"):
            return "preference"
        if self._has("model") or self._has("score"):
            return "performance"
        if any(map(self._has, QUERY_COLUMNS)):
            return "wide"
        raise DataError(
            self._name, None, None, f"columns {list(columns)}", "prompt or messages; see --map prompt=THEIR_COLUMN"
        )

    def _require_columns(self, columns: Sequence[str]) -> None:
        has_query = any(map(self._has, QUERY_COLUMNS))
        needed = {"preference": ("model_a", "model_b"), "performance": ("model", "score"), "wide": ()}[self.kind]
        missing = [name for name in needed if not self._has(name)]
        if not has_query:
            missing.insert(0, "prompt")
        if self.kind == "preference" and not any(all(self._has(name) for name in names) for names in _LABELS):
            missing.append("preference")
        if self.kind == "wide":
            missing += [name for name in self._options.models or () if name not in self._columns]
        if missing:
            hint = f"{missing} (there are {list(columns)}; see --map {missing[0]}=THEIR_COLUMN)"
            raise DataError(self._name, None, missing[0], "no such column", hint)

    def records(self, row_number: int, row: Row) -> list[Record]:
        """The records of one row: several for a wide table, an empty list for a row of another split."""

        def fail(column: str, problem: object, expected: str) -> DataError:
            return DataError(self._name, row_number, self._column(column), str(problem), expected)

        split = self._split(row)
        if self._options.split is not None and split != self._options.split:
            return []
        query, answer = self._query(row_number, row)
        task = self._text(row, "task")
        try:
            weight = self._value(row, "weight")
            weight = 1.0 if weight is None else number(weight, LEAST_WEIGHT, MOST_WEIGHT)
        except InputError as error:
            raise fail("weight", error, "a number above 0") from error
        base = PerformanceRecord(query, "", 0, weight=weight, task=task, split=split)
        if self.kind == "wide":
            return self._wide_records(row_number, row, fail, base)
        if self.kind == "preference":
            records: list[Record] = self._preference(
                row, fail, PreferenceRecord(query, "", "", 0.5, weight, task, split)
            )
        else:
            records = [self._performance(row, fail, base, answer)]
        if not self._kept:
            return records
        self._named.update(*(record.models for record in records))
        return [record for record in records if self._kept.issuperset(record.models)]

    def check_whole(self, records: Sequence[Record]) -> None:
        """Check what only the whole table tells.

        Args:
            records: all records of the table.

        Raises:
            DataError: rows were read, and none of them names only models that were selected; or a column of scores
                was taken for text.
        """
        self.wide.check_texts(self._name)
        if self._named and not records:
            problem = f"no row names only models of {sorted(self._kept)}"
            raise DataError(self._name, None, self._column("model"), problem, f"some of {sorted(self._named)}")

    def _value(self, row: Row, ours: str) -> Any:
        value = row.get(self._found.get(ours, ours))
        if value is None or (isinstance(value, float) and math.isnan(value)):  # as `_missing`; this is called most
            return None
        return value

    def _text(self, row: Row, ours: str) -> str | None:
        value = self._value(row, ours)
        return None if value is None else str(value)

    def _split(self, row: Row) -> str | None:
        if self._options.split is not None and not (self._has("split_hint") or self._has("split")):
            raise DataError(self._name, None, "split", "no such column", "a split or split_hint column to select by")
        text = self._text(row, "split_hint") or self._text(row, "split")
        return None if text is None else _SPLITS.get(text.lower(), text.lower())

    def _query(self, number: int, row: Row) -> tuple[Any, str | None]:
        """The query of a row and the answer behind it. Rows with one cell share one query."""
        column = next((name for name in self._query_columns.values() if not _missing(row.get(name))), None)
        if column is None:
            return read_query(self._name, number, row, self._query_columns)[:2]
        cell = row[column]
        try:
            key = (column, cell if isinstance(cell, str) else json.dumps(cell, sort_keys=True, default=str))
        except (ValueError, RecursionError, TypeError):  # no key to remember it by
            return read_query(self._name, number, row, self._query_columns)[:2]
        read = self._queries.get(key)
        if read is None:
            read = self._queries[key] = read_query(self._name, number, row, self._query_columns)
        return read.query, read.answer

    def _model(self, row: Row, column: str, fail: Callable[..., DataError]) -> str:
        value = self._value(row, column)
        if not isinstance(value, str) or not value.strip():
            raise fail(column, "missing" if value is None else repr(value), "the name of a model")
        value = value.strip()
        return self._options.aliases.get(value, value)

    def _preference(self, row: Row, fail: Callable[..., DataError], base: PreferenceRecord) -> list[Record]:
        model_a, model_b = self._model(row, "model_a", fail), self._model(row, "model_b", fail)
        if model_a == model_b:
            raise fail("model_b", f"{model_b!r} is model_a too", "two different models")
        label = self._label(row, model_a, model_b, fail)
        record = PreferenceRecord(  # not `replace`, which takes a tenth of the time of reading
            base.query,
            model_a,
            model_b,
            base.preference if isinstance(label, CensoredPreference) else label,
            base.weight,
            base.task,
            base.split,
            response_a=self._response(row, "a"),
            response_b=self._response(row, "b"),
        )
        strong = self._value(row, "strong")
        strong = self._options.aliases.get(strong, strong) if isinstance(strong, str) else None
        if isinstance(label, CensoredPreference):
            self._pending.append((record, label))
            return [record]  # replaced when the share of ties is known
        if strong in (model_a, model_b):
            self._known_of_strong.append(label if strong == model_a else 1 - label)
        return [record]

    def _label(
        self, row: Row, model_a: str, model_b: str, fail: Callable[..., DataError]
    ) -> float | CensoredPreference:
        preference = self._value(row, "preference")
        if preference is not None:
            try:
                return number(preference)
            except InputError as error:
                raise fail("preference", error, "1 (a wins), 0.5 (tie), 0 (b wins) or a number between") from error
        winner = self._value(row, "winner")
        if winner is not None:
            raw_a, raw_b = str(self._value(row, "model_a")), str(self._value(row, "model_b"))
            if isinstance(winner, str):
                winner = self._options.aliases.get(winner.strip(), winner)
                if winner.strip() in (model_a, model_b):
                    return float(winner.strip() == model_a)
            try:
                return winner_preference(winner, raw_a, raw_b)
            except InputError as error:
                raise fail(
                    "winner", error, f"model_a, model_b, tie, {raw_a!r} or {raw_b!r}; see --alias {winner}=model_a"
                ) from error
        one_hot = [self._value(row, name) for name in ("winner_model_a", "winner_model_b", "winner_tie")]
        if any(value is not None for value in one_hot):
            try:
                return one_hot_preference(*one_hot)
            except InputError as error:
                raise fail("winner_model_a", error, "one of winner_model_a, winner_model_b, winner_tie is 1") from error
        strong, strong_win = self._value(row, "strong"), self._value(row, "strong_win")
        if strong_win is not None and isinstance(strong, str):
            strong = self._options.aliases.get(strong, strong)
            if strong not in (model_a, model_b):
                raise fail("strong", repr(strong), f"{model_a!r} or {model_b!r}")
            try:
                won = number(strong_win) == 1
            except InputError as error:
                raise fail("strong_win", error, "1 or 0") from error
            return float(strong == model_a) if won else CensoredPreference(strong == model_a)
        column = next((names[0] for names in _LABELS if all(map(self._has, names))), "preference")
        raise fail(column, "missing", "a label; rows without one can be left out with --skip-bad")

    def _response(self, row: Row, side: str) -> str | None:
        for name in dict.fromkeys((self._column(f"response_{side}"), f"output_{side}")):
            value = row.get(name)
            if isinstance(value, str):
                turns = json_list(value)
                prompt = self._value(row, "prompt")
                if turns is None or not isinstance(prompt, str) or json_list(prompt) is None:
                    return value
                return str(turns[-1] or "")  # an arena file holds the turns of the prompt and of the answers
        conversation = self._value(row, f"conversation_{side}")
        try:
            return split_answer(parse_messages(conversation))[1] if conversation else None
        except InputError:
            return None  # a response is optional; the query was read

    def _performance(
        self, row: Row, fail: Callable[..., DataError], base: PerformanceRecord, answer: str | None
    ) -> PerformanceRecord:
        model = self._model(row, "model", fail)
        try:
            score = score_of(self._value(row, "score"), self._options.score_scale)
        except InputError as error:
            raise fail("score", error, "a number from 0 to 1") from error
        cost = self._value(row, "cost_usd")
        try:
            cost = None if cost is None else number(cost, 0, 1e6)
        except InputError as error:
            raise fail("cost_usd", error, "a cost in USD, 0 or more") from error
        response = self._text(row, "response")
        response = answer if response is None else response
        return PerformanceRecord(  # not `replace`, which takes a tenth of the time of reading
            base.query, model, score, cost, response, weight=base.weight, task=base.task, split=base.split
        )

    def _wide_records(
        self, row_number: int, row: Row, fail: Callable[..., DataError], base: PerformanceRecord
    ) -> list[Record]:
        scores = self.wide.scores(row_number, row, fail)
        return [replace(base, model=self._options.aliases.get(column, column), score=score) for column, score in scores]

    def resolve_censored(self, records: list[Record]) -> tuple[list[Record], int, float | None]:
        """Give the rows that say only that strong did not win their soft label, when the whole table is read.

        Returns:
            The records, the number of such rows, and the share of ties that is assumed for them.

        Raises:
            InputError: too few outcomes are known to estimate that share.
        """
        if not self._pending:
            return records, 0, None
        share = self._options.tie_share
        share = tie_share_of(self._known_of_strong) if share is None else number(share)
        soft = {id(record): replace(record, preference=label.soft(share)) for record, label in self._pending}
        kept = sum(id(record) in soft for record in records)  # records of models that were not asked for do not count
        return [soft.get(id(record), record) for record in records], kept, share


def _missing(value: object) -> bool:
    """Whether a value is None, or NaN, which many writers use for a missing value."""
    return value is None or (isinstance(value, float) and math.isnan(value))
