"""The table of answers that `collect` writes and `judge`, `label` and `next-labels` read: one row an answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..cascade.backends import Answer, fault_of
from ..data.columns import find_columns
from ..data.labels import number
from ..data.queries import query_columns
from ..data.rows import SourceOptions, open_table, source_list
from ..data.writers import write_rows
from ..routers.checks import as_number
from ..routers.errors import DataError, InputError
from .prompts import PROMPT_COLUMNS, Prompt, read_prompt
from .question import Reply

#: What an answer is: "ok"; "cut" by the limit on its length; "empty"; "refused" by the model or a filter; "failed": the
#: service refuses the question.
Status = Literal["ok", "cut", "empty", "refused", "failed"]
ANSWER_COLUMNS = (
    *("prompt", "messages", *PROMPT_COLUMNS, "model", "response", "status"),
    *("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens", "tokens_estimated"),
    *("cost_usd", "latency_s", "finish_reason", "served_model", "error"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelAnswer:
    """The answer of one model to one prompt.

    Attributes:
        prompt: the prompt, with its task and its answer key.
        model: name of the model.
        response: the answer; empty where there is none.
        status: whether it is an answer at all; see `Status`.
        cost_usd: its price in USD; None: not known.
        reply: tokens, latency and the like; None: the file does not say.

    Example:
        >>> from routelearn.labelling import ModelAnswer, Prompt
        >>> ModelAnswer(prompt=Prompt(query="How much is 12 * 12?"), model="sim-small", response="144").status
        'ok'
    """

    prompt: Prompt
    model: str
    response: str
    status: Status = "ok"
    cost_usd: float | None = None
    reply: Reply | None = None

    @classmethod
    def of(cls, prompt: Prompt, reply: Reply) -> ModelAnswer:
        """The answer that a model gave."""
        return cls(
            prompt=prompt,
            model=reply.candidate,
            response=reply.text,
            status=status_of_reply(reply),
            cost_usd=reply.cost_usd,
            reply=reply,
        )


def status_of_reply(reply: Reply) -> Status:
    """What a reply is."""
    if reply.error is not None:
        return "failed"
    answer = Answer(reply.text, finish_reason=reply.finish_reason)
    if answer.cut:
        return "cut"
    if not reply.text.strip():
        return "refused" if reply.finish_reason in {"refusal", "content_filter"} else "empty"
    return "refused" if fault_of(answer) is not None else "ok"


def write_answers(answers: Sequence[ModelAnswer], path: str | Path) -> Path:
    """Write answers as parquet, jsonl or csv; the suffix of the path decides. Whole or not at all.

    Raises:
        InputError: the suffix is another one.
    """
    path = Path(path)
    write_rows([_row(answer) for answer in answers], ANSWER_COLUMNS, path)
    return path


def _row(answer: ModelAnswer) -> dict[str, Any]:
    prompt, reply = answer.prompt, answer.reply
    is_chat = not isinstance(prompt.query, str)
    row = dict.fromkeys(ANSWER_COLUMNS)
    row |= {name: getattr(prompt, name) for name in PROMPT_COLUMNS}
    row |= {
        "prompt": None if is_chat else prompt.query,
        "messages": json.dumps(list(prompt.query), ensure_ascii=False) if is_chat else None,
        "model": answer.model,
        "response": answer.response,
        "status": answer.status,
        "cost_usd": answer.cost_usd,
    }
    if reply is not None:
        names = ("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens", "latency_s", "finish_reason")
        row |= {name: getattr(reply, name) for name in (*names, "served_model", "error")}
        row["tokens_estimated"] = reply.estimated
    return row


def read_answers(
    sources: Iterable[str],
    columns: Mapping[str, str] | None = None,
    *,
    on_bad: Callable[[DataError], object] | None = None,
    options: SourceOptions | None = None,
) -> list[ModelAnswer]:
    """Read answers: those that `collect` wrote, or any table with the columns prompt, model and response.

    Args:
        sources: files or hub ids.
        columns: the table's name of some of our columns.
        on_bad: called with the error of each bad row, which is left out; None: the first one raises.
        options: encoding and format of the files.

    Raises:
        DataError: a row is not an answer, or answers the same prompt by the same model again, and `on_bad` is None.
        InputError: there is no such file, no answer in it, or its format is unknown.
    """
    answers: dict[tuple[str, str], ModelAnswer] = {}
    names = source_list(sources)
    for source in names:
        table = open_table(source, options)
        of_query = query_columns(table.name, table.columns, columns or {})
        wanted = tuple(name for name in ANSWER_COLUMNS if name not in {"prompt", "messages"})
        mapped = {ours: theirs for ours, theirs in (columns or {}).items() if ours in wanted}
        found = find_columns(table.name, table.columns, mapped, ("model", "response", *wanted))
        found = {ours: theirs for ours, theirs in found.items() if theirs not in of_query.values()}
        for needed in ("model", "response"):
            if needed not in found:
                raise DataError(table.name, None, needed, "no such column", f"one of {list(table.columns)}, with --map")
        of_prompt = {ours: theirs for ours, theirs in found.items() if ours in PROMPT_COLUMNS}
        for place, row in table.rows:
            try:
                if isinstance(row, DataError):
                    raise row
                prompt = read_prompt(table.name, place, row, of_query, of_prompt)
                answer = _answer(table.name, place, {ours: row.get(theirs) for ours, theirs in found.items()}, prompt)
                key = (prompt.id, answer.model)
                if key in answers:
                    problem = f"{answer.model!r} answers this prompt in an earlier row"
                    expected = "one answer of each model to each prompt"
                    raise DataError(table.name, place, found["model"], problem, expected)
            except DataError as error:
                if on_bad is None:
                    raise
                on_bad(error)
            else:
                answers[key] = answer
    if not answers:
        raise InputError(f"{', '.join(map(str, names))}: no answers; expected at least one")
    return list(answers.values())


def _answer(name: str, place: int, row: Mapping[str, Any], prompt: Prompt) -> ModelAnswer:
    model = row["model"]
    if not isinstance(model, str) or not model:
        raise DataError(name, place, "model", f"{model!r:.80} is no name", "the name of the model that answered")
    response = "" if row["response"] is None else str(row["response"])
    cost = row.get("cost_usd")
    try:
        cost_usd = None if cost is None or cost != cost or cost == "" else number(cost, 0, 1e9)  # noqa: PLR0124 - NaN
    except InputError as error:
        raise DataError(name, place, "cost_usd", str(error), "USD, 0 or more") from error
    reply = _reply(row, model, response, cost_usd)
    known = row.get("status")
    status: Status = known if known in {"ok", "cut", "empty", "refused", "failed"} else status_of_reply(reply)
    return ModelAnswer(prompt=prompt, model=model, response=response, status=status, cost_usd=cost_usd, reply=reply)


def _reply(row: Mapping[str, Any], model: str, response: str, cost_usd: float | None) -> Reply:
    """What a row says of the call."""

    def count(name: str) -> int:
        value = as_number(row.get(name))
        return int(value) if value >= 0 else 0

    def text(name: str) -> str | None:
        value = row.get(name)
        return value if isinstance(value, str) and value else None

    latency = as_number(row.get("latency_s"))
    return Reply(
        candidate=model,
        text=response,
        input_tokens=count("input_tokens"),
        cached_tokens=count("cached_tokens"),
        output_tokens=count("output_tokens"),
        reasoning_tokens=count("reasoning_tokens"),
        estimated=str(row.get("tokens_estimated")).lower() == "true" or row.get("input_tokens") is None,
        cost_usd=cost_usd,
        latency_s=latency if latency >= 0 else 0.0,
        finish_reason=text("finish_reason"),
        served_model=text("served_model"),
        error=text("error"),
    )
