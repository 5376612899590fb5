"""Options that several commands share: what each is called, what `--help` says of it, and what it stands for.

Options that belong together are one dataclass; `with_flags` (cli/flags.py) turns its fields into flags. Some of these
dataclasses also do what their options ask for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from ..data.parser import ReadOptions
from ..data.readers import read_all
from ..data.records import Record
from ..data.rows import SourceOptions
from ..data.splits import without_leaks
from ..routers.errors import InputError
from .flags import Flag, Options
from .terminal import Console

#: Headings of `--help`.
DATA, LEAKS, POOL, DECISION, OUTPUT = "Data", "Leak check", "Models and prices", "Decision", "Output"
#: Columns of a table that is not printed on a terminal.
_WIDTH = 150


@dataclass(frozen=True)
class QueryReading(Options):
    """How to read queries.

    Attributes:
        columns: Read a column under another name, as in --map prompt=question. Can be repeated.
        skip_bad: Skip rows that cannot be read, and list them, instead of failing.
        encoding: Encoding of text files, as in --encoding cp1252. By default the byte order mark tells it; a file
            without one is read as UTF-8.
        format: Format of the files. By default the suffix tells it, and for standard input the first bytes.
    """

    HEADING: ClassVar[str] = DATA

    columns: Annotated[list[str] | None, Flag("--map", metavar="OURS=THEIRS")] = None
    skip_bad: bool = False
    encoding: Annotated[str | None, Flag(metavar="NAME")] = None
    format: Literal["parquet", "jsonl", "json", "csv", "tsv", "txt", "xlsx"] | None = None

    def source(self) -> SourceOptions:
        """What the files do not say of themselves.

        Raises:
            InputError: there is no such encoding.
        """
        return SourceOptions(self.encoding, self.format)

    def column_names(self) -> dict[str, str]:
        """Their column by ours.

        Raises:
            InputError: a pair of names has no "=".
        """
        return parse_pairs(self.columns or [], "--map")


@dataclass(frozen=True)
class Reading(QueryReading):
    """How to read records.

    Attributes:
        alias: Rename a model, as in --alias gpt4_1106_preview=gpt-4-1106-preview. Can be repeated.
        kind: What each row holds: preference (which of two models won), performance (the score of one model) or wide
            (one column of scores for each model). With auto the names of the columns tell.
        models: Read only the records of these models. In a wide table, these are the names of the score columns.
        split: Read only the rows of this split: train, val or test, in the column split or split_hint.
        tie_share: Share of ties, from 0 to 1, among the rows that say only that the strong model did not win. By
            default it is estimated from the other rows.
        score_scale: Highest possible score, as in --score-scale 100 for percent. Scores are divided by it.
    """

    alias: Annotated[list[str] | None, Flag(metavar="THEIRS=OURS")] = None
    kind: Literal["auto", "preference", "performance", "wide"] = "auto"
    models: Annotated[str | None, Flag(metavar="NAME,NAME")] = None
    split: Annotated[str | None, Flag(metavar="NAME")] = None
    tie_share: float | None = None
    score_scale: Annotated[float, Flag(metavar="HIGHEST")] = 1.0

    def options(self) -> ReadOptions:
        """These options, parsed.

        Raises:
            InputError: a pair of names has no "=".
        """
        return ReadOptions(
            kind=None if self.kind == "auto" else self.kind,
            columns=self.column_names(),
            aliases=parse_pairs(self.alias or [], "--alias"),
            models=tuple(name.strip() for name in self.models.split(",")) if self.models else None,
            split=self.split,
            tie_share=self.tie_share,
            skip_bad=self.skip_bad,
            encoding=self.encoding,
            format=self.format,
            score_scale=self.score_scale,
        )

    def training_options(self) -> ReadOptions:
        """The options for training files beside the data proper: they have the same columns and all their splits."""
        return replace(self, split=None, tie_share=None, skip_bad=False).options()

    def given_for_records(self) -> list[str]:
        """The options given that concern records alone, not queries without labels."""
        values = {
            "--alias": self.alias,
            "--kind": self.kind != "auto",
            "--models": self.models,
            "--split": self.split,
            "--tie-share": self.tie_share is not None,
            "--score-scale": self.score_scale != 1,
        }
        return [flag for flag, value in values.items() if value]


@dataclass(frozen=True)
class LeakCheck(Options):
    """Whether prompts that a router was trained on may stand in data that judges the router.

    Attributes:
        train: Files or hub ids that the router was trained on. The command fails if a prompt of --data is in them. Can
            be repeated.
        no_leak_check: Do not check whether prompts of --data were trained on. The output says that they were not
            checked.
        drop_leaks: Leave out prompts that were trained on, and say how many, instead of failing.
    """

    HEADING: ClassVar[str] = LEAKS

    train: Annotated[list[str] | None, Flag(metavar="FILE")] = None
    no_leak_check: bool = False
    drop_leaks: bool = False

    def given(self) -> list[str]:
        """The options given."""
        values = {"--train": self.train, "--no-leak-check": self.no_leak_check, "--drop-leaks": self.drop_leaks}
        return [flag for flag, value in values.items() if value]

    def require_answer(self, command: str) -> None:
        """Refuse a command that says neither what was trained on nor that the check is not wanted.

        Raises:
            InputError: neither was given.
        """
        if not self.train and not self.no_leak_check:
            raise InputError(
                f"{command} checks that no prompt of --data was trained on: give the training files with --train, or "
                "--no-leak-check to go on without the check"
            )

    def training(self, reading: Reading) -> list[Record]:
        """What was trained on, of the files given: all but the rows marked "test"."""
        records = read_all(self.train or [], reading.training_options())
        return [record for record in records if record.split != "test"]

    def check(self, records: list[Record], training: list[Record], console: Console) -> tuple[list[Record], int]:
        """The records whose prompts were not trained on, and how many prompts were left out.

        Raises:
            LeakError: prompts were trained on, and --drop-leaks was not given.
        """
        if not self.train or self.no_leak_check:
            return records, 0
        with console.status("checking for leaks"):
            return without_leaks(records, training, drop=self.drop_leaks)


@dataclass(frozen=True)
class Costs(Options):
    """What costs in USD are computed from.

    Attributes:
        pool: JSON or TOML file with name, input_price and output_price of each model, in USD per million tokens. The
            default is the prices in the bundle.
        output_tokens: Length of an answer, in tokens, that is assumed to compute costs.
    """

    HEADING: ClassVar[str] = POOL

    pool: Path | None = None
    output_tokens: Annotated[int, Flag(least=1)] = 300


def asked_and_got(asked: float, got: float, strong: str) -> str:
    """What a strong share that was asked for came to."""
    return f"asked for {asked:.1%} to {strong}, got {got:.1%}"


def parse_pairs(values: Sequence[str], option: str) -> dict[str, str]:
    """``["a=b"]`` as a mapping.

    Raises:
        InputError: a value without "=".
    """
    pairs = {}
    for value in values:
        key, separator, target = value.partition("=")
        if not separator or not key or not target:
            raise InputError(f"{option} {value!r}; expected two names, as in {option} name=name")
        pairs[key] = target
    return pairs


def check_report_folder(path: Path | None) -> None:
    """Refuse a file where the folder of a report should be.

    Raises:
        InputError: the path is a file.
    """
    if path is not None and path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file; expected a folder for the report")


def table_console() -> Console:
    """A console for tables on stdout; where stdout is not a terminal it is wide enough for every column."""
    console = Console()
    return console if console.is_terminal else Console(width=_WIDTH)
