"""What `score` writes can be read again, by `score` and by everything else: the same queries come back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from routelearn.data.queries import read_queries
from routelearn.data.scoring.file import score_file
from routelearn.routers.errors import DataError
from routelearn.routers.rules import RulesRouter

CHAT = [{"role": "user", "content": 'Say "hi", it\'s\nurgent'}, {"role": "assistant", "content": None}]
ROWS: list[dict[str, Any]] = [
    {"prompt": "plain"},
    {"prompt": 'a "quoted", text;\twith\r\nlines\rand\x0bothers\u2028'},
    {"prompt": "NaN"},
    {"prompt": " null "},
    {"prompt": "ß 日本語 😀"},
    {"prompt": "[1, 2] sort this"},
    {"prompt": '["first turn", "second turn"]'},
    {"prompt": "\ufeffbegins with a mark"},
    {"messages": CHAT},
    {"messages": [{"role": "user", "content": "True, None, 'single' and \\ backslash"}]},
]


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("columns", [("prompt",), ("messages",), ("prompt", "messages")])
def test_what_score_wrote_gives_the_same_queries_and_scores(
    tmp_path: Path, suffix: str, columns: tuple[str, ...]
) -> None:
    rows = [{"id": number, "tags": ["a", "b"], **row} for number, row in enumerate(ROWS) if set(columns) & set(row)]
    source, scored, again = tmp_path / "in.jsonl", tmp_path / f"out.{suffix}", tmp_path / f"again.{suffix}"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    router = RulesRouter("big", "small")
    assert score_file(router, str(source), str(scored)).rows == len(rows)
    assert texts(scored) == texts(source)
    score_file(router, str(scored), str(again), prefix="second_")
    assert texts(again) == texts(source)


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_messages_with_text_and_with_parts_can_be_mixed(tmp_path: Path, suffix: str) -> None:
    rows = [CHAT, [*CHAT, {"role": "tool", "content": [{"type": "text", "text": "290,000"}]}]]
    source, scored = tmp_path / "in.jsonl", tmp_path / f"out.{suffix}"
    source.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    score_file(RulesRouter("big", "small"), str(source), str(scored))
    assert texts(scored) == texts(source)
    with pytest.raises(DataError, match=r"row 2, column 'messages': of another type.*\.jsonl for the output"):
        score_file(RulesRouter("big", "small"), str(source), str(tmp_path / "out.parquet"))
    assert not (tmp_path / "out.parquet").exists()


def texts(path: Path) -> list[Any]:
    """The queries of a file as JSON; parquet gives every message the same keys, so those without a value go."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items() if item is not None}
        return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value

    return [plain(query) for query in read_queries([str(path)])]
