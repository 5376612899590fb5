"""Says of data what is there, what is missing, and what can be done with it, before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence

from ..data.parser import ReadOptions
from ..data.queries import query_columns
from ..data.records import PerformanceRecord, PreferenceRecord, Record, record_key
from ..data.rows import open_table
from ..routers.errors import DataError

#: Training holds out folds of prompts, and a router of fewer labels than this is mostly noise.
ENOUGH_PROMPTS = 300
_LOSS, _DELTA = 0.02, 0.05


def overview(source: str, options: ReadOptions) -> list[str]:
    """The columns of a table, and where its queries stand.

    Raises:
        InputError: the table cannot be opened.
    """
    table = open_table(source, options.source)
    lines = [f"{source}: columns {', '.join(table.columns) or '(none can be read)'}"]
    try:
        found = query_columns(table.name, table.columns, options.columns)
    except DataError:
        return [*lines, "there is no column of queries; name it, as in --map prompt=THEIR_COLUMN"]
    if found:
        lines.append("queries are read from " + ", ".join(found.values()))
    return lines


def unlabelled(error: DataError) -> list[str]:
    """What a table without usable labels can do."""
    about_labels = error.row is None or error.problem.startswith("no score in the row")
    if not about_labels or (error.column == "prompt" and error.row is None):
        return []
    return [
        "without labels these queries can be scored (routelearn score) and set a threshold (routelearn calibrate "
        "--strong-share); they cannot train or evaluate",
        "labels are: model_a, model_b and winner; or model and score; or one column of scores for each model",
    ]


def possibilities(records: Sequence[Record]) -> list[str]:
    """What labelled records can do, and how many more they need for the rest."""
    if not records:
        return []
    by_prompt: dict[str, set[str]] = {}
    for record in records:
        by_prompt.setdefault(record_key(record), set()).update(record.models)
    models = {name for record in records for name in record.models}
    prompts = len(by_prompt)
    folded = {name.casefold() for name in models}
    lines = []
    if len(folded) < len(models):
        lines.append("names of models differ only by case: make them one with --alias THEIRS=OURS")
    if len(models) < 2:
        return [*lines, f"missing: a second model ({', '.join(models)} alone); a router decides between two or more"]
    more = f"; {ENOUGH_PROMPTS - prompts:,} more prompts would make it steadier" if prompts < ENOUGH_PROMPTS else ""
    lines.append(f"can train a router (routelearn train mf) on {prompts:,} prompts and {len(models)} models{more}")
    answered = [r for r in records if isinstance(r, PerformanceRecord) and r.response is not None]
    if answered:
        lines.append(f"can train a verifier (routelearn train verifier): {len(answered):,} answers have a score")
    else:
        lines.append("cannot train a verifier: that takes answers with scores (columns response, model and score)")
    lines.append(_guarantee(records, by_prompt))
    return lines


def _guarantee(records: Sequence[Record], by_prompt: dict[str, set[str]]) -> str:
    from ..evaluation.thresholds.p_values import fewest

    both = sum(len(names) > 1 for names in by_prompt.values())
    binary = all(isinstance(r, PreferenceRecord) or r.score in (0, 1) for r in records)
    needed = fewest("clopper-pearson" if binary else "betting", _LOSS, _DELTA)
    what = f"a guarantee (routelearn calibrate --max-quality-loss {_LOSS:g}, confidence {1 - _DELTA:.0%})"
    if both < needed:
        return f"cannot give {what}: {both:,} prompts have labels of two models; at least {needed - both:,} more needed"
    return f"can try for {what} with prompts that were not trained on: {both:,} have labels of two models"
