"""`routelearn data from-log`: request logs to records, or to the prompts that are to be labelled."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from ..data.log_line import LogFields
from ..data.log_records import LoggedPrompt, LogOptions, LogRecords, read_request_logs
from ..data.writers import write_records, write_rows
from ..routers.errors import InputError
from .flags import Flag, Options, with_flags
from .input_files import read_pool
from .options import DATA, OUTPUT, POOL, QueryReading, parse_pairs
from .outputs import Overwrite
from .reading import bad_rows, say
from .terminal import Console

_OUTCOME, _PROMPT_COLUMNS = "Outcomes", ("prompt", "messages", "task", "weight")


@dataclass(frozen=True)
class FromLogOptions(Options):
    """What to read, and what to make of it.

    Attributes:
        logs: Request logs: decision logs of routelearn, LiteLLM's logs and spend rows, requests with their responses,
            or outputs of batches beside their inputs. Files of JSON lines, compressed or not, or folders of them.
        out: The file to write: .parquet, .jsonl or .csv.
        queries_only: Write the prompts with the number of their requests as weight, also those without an outcome.
        outcomes: Table of outcomes with a column of ids (of requests, or hashes of queries) and a column of scores:
            numbers from 0 to 1, or words such as thumbs_up.
        outcome_field: Field of a line that holds the outcome, as in --outcome-field metadata.feedback.score. By default
            outcome, feedback or score, also in the metadata.
        score_scale: Highest possible score, as in --score-scale 5 for stars. Scores are divided by it.
        prompts: Table of the prompts behind the hashes of a decision log: with a column query_hash, or with --salt-env.
        salt_env: Name of the environment variable with the salt that the decision log was written with.
        model_field: Field of a line that holds the name of the model. By default that of its format.
        task_field: Field of a line that holds the name of the task.
        alias: Rename a model, as in --alias azure/gpt-4o=gpt-4o. Can be repeated.
        pool: JSON or TOML file with name, input_price and output_price of each model, in USD per million tokens, for
            lines that state their tokens and no cost.
        retry_window: Requests with one query and one model within so many seconds of each other are retries, of which
            the last with an outcome counts.
        most_weight: Largest weight of a record of an explored decision, which is otherwise 1 / its propensity.
    """

    logs: Annotated[list[str], Flag(is_argument=True, metavar="LOG...")]
    out: Annotated[Path, Flag(short="-o", panel=OUTPUT)]
    queries_only: Annotated[bool, Flag(panel=OUTPUT)] = False
    outcomes: Annotated[Path | None, Flag(metavar="FILE", panel=_OUTCOME)] = None
    outcome_field: Annotated[str | None, Flag(metavar="FIELD", panel=_OUTCOME)] = None
    score_scale: Annotated[float, Flag(metavar="HIGHEST", panel=_OUTCOME)] = 1.0
    prompts: Annotated[Path | None, Flag(metavar="FILE", panel=DATA)] = None
    salt_env: Annotated[str | None, Flag(metavar="NAME", panel=DATA)] = None
    model_field: Annotated[str | None, Flag(metavar="FIELD", panel=DATA)] = None
    task_field: Annotated[str | None, Flag(metavar="FIELD", panel=DATA)] = None
    alias: Annotated[list[str] | None, Flag(metavar="THEIRS=OURS", panel=DATA)] = None
    pool: Annotated[Path | None, Flag(panel=POOL)] = None
    retry_window: Annotated[float, Flag(least=0, metavar="SECONDS", panel=DATA)] = 60.0
    most_weight: Annotated[float, Flag(least=1, panel=DATA)] = 100.0

    def options(self, reading: QueryReading) -> LogOptions:
        """These options, parsed.

        Raises:
            InputError: one of them cannot be used.
        """
        return LogOptions(
            fields=LogFields(self.outcome_field, self.model_field, self.task_field, self.score_scale),
            outcomes=self.outcomes,
            prompts=self.prompts,
            salt=_salt(self.salt_env),
            columns=reading.column_names(),
            aliases=parse_pairs(self.alias or [], "--alias"),
            prices=read_pool(self.pool),
            retry_window_s=self.retry_window,
            most_weight=self.most_weight,
            skip_bad=reading.skip_bad,
            encoding=reading.encoding,
            format=reading.format,
        )


@with_flags
def from_log_command(options: FromLogOptions, reading: QueryReading, overwrite: Overwrite) -> None:
    """Turn request logs with outcomes into records, weighted by the probabilities of explored decisions.

    The query of a record is what the router knew: the messages of the request up to the last user turn. Failed calls,
    retries and requests without an outcome are counted and left out.

    Example: routelearn data from-log decisions.jsonl --outcomes thumbs.csv --out records.parquet
    """
    if options.out.suffix.lower() not in {".parquet", ".jsonl", ".csv"}:
        raise InputError(f"{options.out}: expected a file that ends in .parquet, .jsonl or .csv")
    overwrite.check(options.out)
    console = Console(stderr=True)
    with console.status("reading"):
        found = read_request_logs(options.logs, options.options(reading))
    say(console, bad_rows(found.bad))
    say(console, _left_out(found, options))
    if options.queries_only:
        if not found.prompts:
            raise InputError(f"no prompts to write: {_why(found)}")
        write_rows([_row(prompt) for prompt in found.prompts], _PROMPT_COLUMNS, options.out)
        say(console, [f"wrote {len(found.prompts):,} prompts of {_texts(found):,} requests to {options.out}"])
        return
    if not found.records:
        raise InputError(f"no records to write: {_why(found)}")
    say(console, _weights(found, options))
    write_records(found.records, options.out)
    say(console, [f"wrote {len(found.records):,} records to {options.out}"])


def _salt(name: str | None) -> str | None:
    if name is None:
        return None
    if name not in os.environ:
        raise InputError(f"--salt-env {name}: there is no such environment variable; expected one with the salt")
    return os.environ[name]


def _texts(found: LogRecords) -> int:
    return found.counts.requests - found.counts.without_text


def _row(prompt: LoggedPrompt) -> dict[str, object]:
    is_text = isinstance(prompt.query, str)
    return {
        "prompt": prompt.query if is_text else None,
        "messages": None if is_text else json.dumps(list(prompt.query), ensure_ascii=False),
        "task": prompt.task,
        "weight": float(prompt.count),
    }


def _why(found: LogRecords) -> str:
    counts = found.counts
    if counts.requests and counts.hashed == counts.requests:
        return (
            f"the decision log has hashes in place of the texts of all {counts.hashed:,} requests; expected --prompts "
            "FILE with the prompts, and --salt-env NAME with the salt of the log, or a log with keep_prompts=True"
        )
    return (
        f"{counts.lines:,} lines, {counts.failed:,} failed calls, {counts.without_text:,} requests without a text, "
        f"{counts.without_outcome:,} without an outcome; expected a request with both (--outcomes FILE, "
        "--outcome-field FIELD, or --queries-only)"
    )


def _left_out(found: LogRecords, options: FromLogOptions) -> list[str]:
    """What became of the lines, one sentence each."""
    counts = found.counts
    lines = [f"{counts.lines:,} lines, {counts.requests:,} requests"]
    sentences = [
        (counts.broken, "broken lines of decision logs left out"),
        (counts.failed, "requests left out, because their call failed"),
        (counts.repeated, "further lines of the same requests folded into them"),
        (counts.retries, f"retries within {options.retry_window:g} s left out"),
        (
            counts.without_text,
            f"requests left out, because the log has no text of them ({counts.hashed:,} have a hash)",
        ),
        (0 if options.queries_only else counts.without_outcome, "requests left out, because they have no outcome"),
        (counts.unmatched, "outcomes that name no request"),
    ]
    lines += [f"{number:,} {sentence}" for number, sentence in sentences if number]
    lines += [f"{number:,} lines of other calls left out ({kind})" for kind, number in counts.other.most_common()]
    if found.another is not None:
        name, decided, answered = found.another
        lines.append(
            f"{counts.other_model:,} explored requests left out, because another model answered than was drawn (first: "
            f"{name}, {decided} drawn, {answered} answered); where both are one model, --alias {answered}={decided}"
        )
    return lines


def _weights(found: LogRecords, options: FromLogOptions) -> list[str]:
    """What the weights are, and what the records say nothing of."""
    counts = found.counts
    certain = len(found.records) - counts.explored
    lines = []
    if counts.explored:
        lines.append(f"{counts.explored:,} records of explored decisions have the weight 1 / propensity")
    if counts.capped:
        lines.append(
            f"{counts.capped:,} of these weights are cut to {options.most_weight:g} (--most-weight), which "
            "biases estimates a little towards the models that are chosen often"
        )
    if certain:
        lines.append(
            f"{certain:,} records have the weight 1, because their model was not drawn: such a log says nothing of the "
            "model that was not chosen, and comparing its models compares the queries that each of them got"
        )
    return lines
