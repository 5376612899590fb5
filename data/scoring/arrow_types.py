"""Keeps rows of text formats to one type a column, as parquet needs it; a row that does not fit is a bad row."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

from ...routers.errors import DataError, require
from ..raw_source import Item, Row


class ArrowTypes:
    """The types of a table's columns, as the rows so far have them.

    The first chunk with rows decides the types. In it, a row whose types contradict those of the rows before is bad.
    Columns without a value in it stay open until a row fills them.
    """

    def __init__(self, name: str, schema: Any = None) -> None:
        """Begin a table.

        Args:
            name: name of the table, for messages.
            schema: the pyarrow schema if it is known.
        """
        self._name = name
        self._arrow: Any = require("pyarrow", "data")
        self._errors = (self._arrow.ArrowException, OverflowError, UnicodeError, TypeError, ValueError)
        self._schema: Any = schema
        self._fixed = schema is not None

    def fitting(self, items: Sequence[Item]) -> list[Item]:
        """The rows of a chunk; in the place of a row that does not fit stands its error."""
        kept = [row for _, row in items if not isinstance(row, DataError)]
        try:
            self._take(kept)
        except self._errors:
            return [(number, self._alone(number, row)) for number, row in items]
        return list(items)

    def first(self, rows: list[Row], columns: Sequence[str]) -> Any:
        """The rows of the first chunk as a pyarrow table with these columns, of types that are fixed from now on.

        None: there are no rows, or one does not fit; then the types are as before.
        """
        if not rows or self._schema is not None:
            return None
        try:
            found = self._take(rows)
        except self._errors:
            return None
        schema = self.schema(columns)
        nulls = self._arrow.nulls
        filled = [
            found.column(field.name).cast(field.type)
            if field.name in found.column_names
            else nulls(len(rows), field.type)
            for field in schema
        ]
        return self._arrow.Table.from_arrays(filled, schema=schema)

    def build(self, rows: list[Row]) -> Any:
        """The rows as a pyarrow table of the fixed types; None: the types are not fixed, or a row does not fit."""
        if not self._fixed:
            return None
        try:
            return self._arrow.Table.from_pylist(rows, schema=self._schema)
        except self._errors:
            return None

    def schema(self, columns: Sequence[str]) -> Any:
        """The pyarrow schema with these columns, fixed from now on. A column without a value has the type text."""
        self._fixed = True
        there = {} if self._schema is None else {field.name: field.type for field in self._schema}
        text = self._arrow.string()
        types = {name: there.get(name, text) for name in columns}
        null = self._arrow.types.is_null
        self._schema = self._arrow.schema([(name, text if null(kind) else kind) for name, kind in types.items()])
        return self._schema

    def _take(self, rows: list[Row]) -> Any:
        """Widen the types by these rows, and give the rows as a table; None: there are no rows."""
        if not rows:
            return None
        if self._fixed:
            return self._arrow.Table.from_pylist(rows, schema=self._schema)
        names = dict.fromkeys(chain.from_iterable(rows))
        table = self._arrow.table({name: [row.get(name) for row in rows] for name in names})
        found = table.schema
        if self._schema is not None:
            found = self._arrow.unify_schemas([self._schema, found], promote_options="permissive")
        self._schema = found
        return table

    def _alone(self, number: int, row: Row | DataError) -> Row | DataError:
        if isinstance(row, DataError):
            return row
        try:
            self._take([row])
        except self._errors as error:
            column = self._column(row)
            problem = f"of another type than in the rows before, or out of its range ({str(error)[:150]})"
            return DataError(self._name, number, column, problem, "values of one type, or .jsonl for the output")
        return row

    def _column(self, row: Row) -> str | None:
        for name, value in row.items():
            try:
                self._take([{name: value}])
            except self._errors:
                return name
        return None
