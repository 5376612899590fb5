"""Says of data what is there, what is missing, and what can be done with it, before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence

from ..data.parser import ReadOptions
from ..data.queries import query_columns
from ..data.records import PerformanceRecord, PreferenceRecord, Record, record_key
from ..data.rows import open_table
from ..routers.errors import DataError

#: With fewer distinct prompts than the first number training refuses (two for each of its five folds); with fewer than
#: the second a router is mostly noise.
LEAST_PROMPTS, ENOUGH_PROMPTS = 10, 300
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
        return ["no record could be read, so the data can do nothing yet"]
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
    lines.append(_router(records, prompts, models))
    lines.append(_verifier(records))
    lines.append(_guarantee(records, by_prompt))
    return lines


def _router(records: Sequence[Record], prompts: int, models: set[str]) -> str:
    if prompts < LEAST_PROMPTS:
        return f"cannot train a router: {_prompts(prompts)}; at least {LEAST_PROMPTS - prompts} more needed"
    outcomes = {_outcome(record) for record in records}
    if len(outcomes) == 1:
        return f"cannot train a router: every label is the same ({outcomes.pop()}); other labels are needed as well"
    pair = " --strong NAME --weak NAME" if len(models) > 2 else ""
    more = f"; {ENOUGH_PROMPTS - prompts:,} more prompts would make it steadier" if prompts < ENOUGH_PROMPTS else ""
    return f"can train a router (routelearn train mf{pair}) on {_prompts(prompts)} and {len(models)} models{more}"


def _verifier(records: Sequence[Record]) -> str:
    scores: list[float] = []
    for record in records:
        if isinstance(record, PerformanceRecord):
            scores += [record.score] if record.response is not None else []
        else:
            scores += [record.preference] if record.response_a is not None else []
            scores += [1 - record.preference] if record.response_b is not None else []
    if not scores:
        return (
            "cannot train a verifier: there are no answers; that takes the columns response, model and score, or "
            "response_a and response_b beside the labels"
        )
    good = sum(score >= 0.5 for score in scores)
    kinds = f"{len(scores):,} answers with labels, {good:,} of them good"
    if min(good, len(scores) - good) < LEAST_PROMPTS:
        return (
            f"cannot train a verifier: {kinds}; at least {LEAST_PROMPTS} good and {LEAST_PROMPTS} bad ones are needed"
        )
    return f"can train a verifier (routelearn train verifier): {kinds}"


def _outcome(record: Record) -> str:
    if isinstance(record, PerformanceRecord):
        return f"score {record.score:g}"
    if record.preference == 0.5:
        return "a tie"
    return f"a win of {record.model_a if record.preference > 0.5 else record.model_b}"


def _prompts(number: int) -> str:
    return f"{number:,} prompt{'' if number == 1 else 's'}"


def _guarantee(records: Sequence[Record], by_prompt: dict[str, set[str]]) -> str:
    from ..evaluation.thresholds.p_values import fewest

    both = sum(len(names) > 1 for names in by_prompt.values())
    binary = all(isinstance(r, PreferenceRecord) or r.score in (0, 1) for r in records)
    needed = fewest("clopper-pearson" if binary else "betting", _LOSS, _DELTA)
    what = f"a guarantee (routelearn calibrate --max-quality-loss {_LOSS:g}, confidence {1 - _DELTA:.0%})"
    if both < needed:
        return f"cannot give {what}: {_prompts(both)} with labels of two models; at least {needed - both:,} more needed"
    return f"can try for {what} with prompts that were not trained on: {_prompts(both)} with labels of two models"
