"""Writes one part of a folder of parts: under a temporary name until it is whole, with the counts of its rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...routers.errors import require

#: Key of the counts in the metadata of a part.
METADATA = b"routelearn"
#: Number of chunks in a row group of the output.
_CHUNKS_PER_GROUP = 8


class PartWriter:
    """Writes one part under a temporary name; `finish` renames it."""

    def __init__(self, path: Path) -> None:
        """Begin a part at its final path."""
        self._path = path
        self._staging = path.with_name(f".{path.name}.tmp")  # a kill leaves this file, and the next run overwrites it
        self._waiting: list[Any] = []
        self._writer: Any = None

    def __enter__(self) -> PartWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()
        self._staging.unlink(missing_ok=True)

    def __call__(self, table: Any) -> None:
        """Write the rows of a pyarrow table, all of which have the same schema."""
        self._waiting.append(table)
        if len(self._waiting) == _CHUNKS_PER_GROUP:
            self._flush()

    def _flush(self) -> None:
        arrow: Any = require("pyarrow", "data")
        parquet: Any = require("pyarrow.parquet", "data")
        group = arrow.concat_tables(self._waiting)
        self._waiting.clear()
        if self._writer is None:
            self._writer = parquet.ParquetWriter(self._staging, group.schema, compression="zstd")
        self._writer.write_table(group, row_group_size=group.num_rows or None)

    def finish(self, content: dict[str, Any]) -> None:
        """Add the counts to the file and rename it. When no table was written, there is no file."""
        if self._waiting:
            self._flush()
        if self._writer is None:
            return
        self._writer.add_key_value_metadata({METADATA.decode(): json.dumps(content, sort_keys=True)})
        self._writer.close()
        self._writer = None
        self._staging.replace(self._path)
