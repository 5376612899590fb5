"""Request logs in, performance records out: what was asked, who answered, how good it was, and with which weight."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..monitoring.log_rows import last_outcomes
from ..routers.decision import Model
from ..routers.errors import DataError, InputError
from ..routers.query import Query, transcript
from .log_files import read_lines
from .log_folding import asked_text, folded_by_id, merged, with_inputs, without_retries
from .log_formats import BatchInput, LoggedCall, LoggedOutcome, OtherCall
from .log_line import LogFields
from .log_tables import Outcome, read_hashed_prompts, read_outcomes
from .records import PerformanceRecord
from .rows import SourceOptions, source_list

#: The source of records from logs.
SOURCE = "log"
_MILLION = 1e6


@dataclass(frozen=True)
class LogOptions:
    """How to read request logs.

    Attributes:
        fields: where lines hold what the formats do not fix.
        outcomes: a table of outcomes with a column of ids and one of scores; None: the lines have them.
        prompts: a table of the prompts behind the hashes of a decision log; None: there is none.
        salt: the salt that the decision log was written with; None: not known.
        columns: the names that these tables have for our columns, such as ``{"id": "trace", "prompt": "question"}``.
        aliases: our name of a model by theirs.
        prices: prices of models, for lines that state tokens and no cost.
        retry_window_s: calls with one query and one model within so many seconds of each other are retries.
        most_weight: the largest weight, at least 1.
        skip_bad: leave out lines that cannot be read, and list them, instead of failing.
        encoding: the encoding of the files; None: as the byte order mark says, otherwise UTF-8.
        format: the format of the logs; None: by the suffix, and JSON lines where it says nothing.

    Example:
        >>> from routelearn.data import LogOptions
        >>> LogOptions(most_weight=20).most_weight
        20
    """

    fields: LogFields = field(default_factory=LogFields)
    outcomes: str | Path | None = None
    prompts: str | Path | None = None
    salt: str | bytes | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    prices: Sequence[Model] = ()
    retry_window_s: float = 60.0
    most_weight: float = 100.0
    skip_bad: bool = False
    encoding: str | None = None
    format: str | None = None

    def __post_init__(self) -> None:
        """Refuse numbers out of their ranges.

        Raises:
            InputError: a number is.
        """
        if not self.most_weight >= 1 or math.isinf(self.most_weight):
            raise InputError(f"--most-weight {self.most_weight}; expected a number of 1 or more")
        if not self.retry_window_s >= 0:
            raise InputError(f"--retry-window {self.retry_window_s}; expected seconds, 0 or more")
        if not 0 < self.fields.score_scale < math.inf:
            raise InputError(
                f"--score-scale {self.fields.score_scale}; expected the highest score there can be, above 0"
            )


@dataclass
class LogCounts:
    """What became of the lines of logs.

    Attributes:
        lines: lines that were read.
        broken: lines of decision logs that a kill cut, which are left out as `monitoring.read_log` does.
        other: lines of calls that ask no model a question, by kind.
        calls: lines of calls.
        failed: requests whose call failed.
        repeated: further lines of one request.
        retries: requests that were left out as retries.
        requests: requests that are left.
        without_text: requests of which the log has no text.
        hashed: those of them of which it has a hash.
        without_outcome: requests with a text and without an outcome.
        other_model: explored requests that another model answered than was drawn.
        explored: records of decisions that were drawn, with a propensity below 1.
        capped: records whose weight is `most_weight` instead of 1 / propensity.
        unmatched: outcomes that name no request.

    Example:
        >>> from routelearn.data import LogCounts
        >>> LogCounts(lines=3, broken=1).retries
        0
    """

    lines: int = 0
    broken: int = 0
    other: Counter[str] = field(default_factory=Counter)
    calls: int = 0
    failed: int = 0
    repeated: int = 0
    retries: int = 0
    requests: int = 0
    without_text: int = 0
    hashed: int = 0
    without_outcome: int = 0
    other_model: int = 0
    explored: int = 0
    capped: int = 0
    unmatched: int = 0


@dataclass(frozen=True, slots=True)
class LoggedPrompt:
    """One prompt of the logs.

    Attributes:
        query: a prompt, or a chat as a tuple of messages.
        task: name of its task, or None.
        count: number of requests with it.

    Example:
        >>> from routelearn.data import LoggedPrompt
        >>> LoggedPrompt("How much is 2 + 2?", task=None, count=3).count
        3
    """

    query: Query
    task: str | None
    count: int


@dataclass
class LogRecords:
    """What logs hold.

    Attributes:
        records: one record for each request with a text and an outcome.
        prompts: the different prompts, also those without an outcome, in the order of the logs.
        counts: what became of the lines.
        bad: one error for each line that was left out because it cannot be read.
        another: the first explored request that another model answered: its id, the model drawn and the one that
            answered; None: there is none.

    Example:
        >>> from pathlib import Path
        >>> from routelearn.data import read_request_logs
        >>> line = '{"request": {"model": "m", "input": "What is 2 + 2?"}, "response": "4", "feedback": "thumbs_up"}'
        >>> _ = Path("log.jsonl").write_text(line)
        >>> (record,) = read_request_logs(["log.jsonl"]).records
        >>> record.query, record.score, record.source
        ('What is 2 + 2?', 1.0, 'log')
    """

    records: list[PerformanceRecord] = field(default_factory=list)
    prompts: list[LoggedPrompt] = field(default_factory=list)
    counts: LogCounts = field(default_factory=LogCounts)
    bad: list[DataError] = field(default_factory=list)
    another: tuple[str, str, str] | None = None


def read_request_logs(logs: Iterable[str | Path], options: LogOptions | None = None) -> LogRecords:
    """Read request logs into performance records. docs/labels.md describes the formats and the rules.

    Decision logs of routelearn, LiteLLM's logs, OpenAI-style requests and batches are told by the fields of each line.
    The weight of a record is 1 / the probability with which its model was drawn, where the log has one.

    Args:
        logs: files, folders, or "-" for standard input. A decision log is read with its rotated files.
        options: how to read them; None: the default options.

    Raises:
        DataError: a line is of no known kind, or a field is not as expected, and bad lines are not skipped.
        InputError: there is no such file.
    """
    options = options or LogOptions()
    source = SourceOptions(options.encoding, options.format)
    result = LogRecords()
    calls, inputs = _read(source_list(logs), options, source, result)
    calls = with_inputs(calls, inputs)
    groups = folded_by_id(calls)
    whole = [merged(group) for group in groups]
    requests = [_named(call, options.aliases) for call in whole if call is not None]
    counts = result.counts
    counts.calls, counts.failed = len(calls), len(whole) - len(requests)
    counts.repeated = len(calls) - len(groups)
    if options.prompts is not None:
        prompts = read_hashed_prompts(options.prompts, options.salt, options.columns)
        requests = [
            replace(call, query=prompts.get(call.query_hash or "")) if call.query is None else call for call in requests
        ]
    if options.outcomes is not None:
        table = read_outcomes(options.outcomes, options.columns, scale=options.fields.score_scale)
        requests, unmatched = _with_outcomes(requests, table, str(options.outcomes), options.aliases)
        counts.unmatched += unmatched
    requests, counts.retries = without_retries(requests, options.retry_window_s, _is_explored)
    counts.requests = len(requests)
    _collect(requests, options, result)
    return result


def _read(
    logs: Sequence[str | Path], options: LogOptions, source: SourceOptions, result: LogRecords
) -> tuple[list[LoggedCall], list[BatchInput]]:
    """The calls and the requests of batches; decisions have the outcomes that stand on lines of their own."""
    calls: list[LoggedCall] = []
    inputs: list[BatchInput] = []
    outcomes: list[LoggedOutcome] = []
    counts = result.counts
    for line in read_lines(logs, options.fields, source):
        counts.lines += 1
        if line is None:
            counts.broken += 1
        elif isinstance(line, DataError):
            if not options.skip_bad:
                raise line
            result.bad.append(line)
        elif isinstance(line, OtherCall):
            counts.other[line.kind] += 1
        elif isinstance(line, BatchInput):
            inputs.append(line)
        elif isinstance(line, LoggedOutcome):
            outcomes.append(line)
        else:
            calls.append(line)
    scores = last_outcomes(one.line for one in outcomes)
    decisions = {call.ids[0] for call in calls if call.is_decision and call.ids}
    counts.unmatched += len(scores.keys() - decisions)
    return [
        replace(call, outcome=scores[call.ids[0]]) if call.is_decision and call.ids and call.ids[0] in scores else call
        for call in calls
    ], inputs


def _named(call: LoggedCall, aliases: Mapping[str, str]) -> LoggedCall:
    decided = None if call.decided is None else aliases.get(call.decided, call.decided)
    return replace(call, model=aliases.get(call.model, call.model), decided=decided)


def _with_outcomes(
    calls: Sequence[LoggedCall], table: Sequence[Outcome], name: str, aliases: Mapping[str, str]
) -> tuple[list[LoggedCall], int]:
    """The calls with the outcomes of a table, whose last row for a call counts; and the number of rows for no call.

    Raises:
        DataError: a row without a model names calls of several models.
    """
    by_id: dict[str, list[int]] = {}
    for number, call in enumerate(calls):
        for one in {*call.ids, *([call.query_hash] if call.query_hash else [])}:
            by_id.setdefault(one, []).append(number)
    scores: dict[int, float] = {}
    unmatched = 0
    for outcome in table:
        meant = by_id.get(outcome.id, [])
        models = {calls[number].model for number in meant}
        if outcome.model is not None:
            meant = [number for number in meant if calls[number].model == aliases.get(outcome.model, outcome.model)]
        elif len({asked_text(calls[number]) for number in meant}) > 1:
            problem = f"{outcome.id!r} names {len(meant)} requests with different queries"
            raise DataError(name, outcome.row, None, problem, "the id of one request, or the hash of a query")
        elif len(models) > 1:
            problem = f"{outcome.id!r} names requests of the models {', '.join(sorted(models))}"
            raise DataError(name, outcome.row, "model", problem, "a column model, which says whose answer is meant")
        unmatched += not meant
        scores.update(dict.fromkeys(meant, outcome.score))
    return [replace(call, outcome=scores.get(number, call.outcome)) for number, call in enumerate(calls)], unmatched


def _is_explored(call: LoggedCall) -> bool:
    return call.propensity is not None and call.propensity < 1


def _collect(requests: Sequence[LoggedCall], options: LogOptions, result: LogRecords) -> None:
    """Fill in the records, the prompts and the counts."""
    counts, prices = result.counts, {model.name: model for model in options.prices}
    prompts: dict[str, LoggedPrompt] = {}
    for call in requests:
        if call.query is None:
            counts.without_text += 1
            counts.hashed += call.query_hash is not None
            continue
        key = transcript(call.query)
        known = prompts.get(key) or LoggedPrompt(call.query, call.task, 0)
        prompts[key] = replace(known, count=known.count + 1)
        if call.outcome is None:
            counts.without_outcome += 1
            continue
        weight = 1.0
        if _is_explored(call) and call.propensity is not None:
            if call.decided is not None and call.decided != call.model:
                counts.other_model += 1
                result.another = result.another or (call.ids[0] if call.ids else "-", call.decided, call.model)
                continue
            weight = min(1 / call.propensity, options.most_weight)
            counts.explored += 1
            counts.capped += 1 / call.propensity > options.most_weight
        result.records.append(
            PerformanceRecord(
                call.query,
                call.model,
                call.outcome,
                _cost(call, prices.get(call.model)),
                call.response,
                weight=weight,
                task=call.task,
                source=SOURCE,
            )
        )
    result.prompts = list(prompts.values())


def _cost(call: LoggedCall, price: Model | None) -> float | None:
    """The cost that the log states, otherwise that of its tokens."""
    if call.cost_usd is not None or call.tokens is None or price is None:
        return call.cost_usd
    if price.input_price is None or price.output_price is None:
        return None
    return (call.tokens[0] * price.input_price + call.tokens[1] * price.output_price) / _MILLION
