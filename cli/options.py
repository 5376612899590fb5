"""Options that several commands share: what each is called, what `--help` says of it, and what it stands for.

Options that belong together are one dataclass; `with_flags` (cli/flags.py) turns its fields into flags. Some of these
dataclasses also do what their options ask for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from ..data.parser import ReadOptions
from ..data.readers import read_all
from ..data.records import Record
from ..data.rows import SourceOptions
from ..data.splits import without_leaks
from ..policies.threshold import policy_of
from ..routers.base import Policy, Router
from ..routers.errors import InputError
from ..routers.fallback import FallbackRouter
from ..routers.learned import LearnedRouter, load
from ..routers.rules import RulesRouter, load_rules
from .flags import Flag, Options
from .terminal import Console

#: The name of the router that consists of rules alone.
RULES = "rules"
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
class RulesModels(Options):
    """The models and the rules of the router "rules", which has no bundle that names them.

    Attributes:
        strong: The strong model, if the router is "rules". A bundle names its own.
        weak: The weak model, if the router is "rules". A bundle names its own.
        rules: TOML file of rules, if the router is "rules". The default is the built-in rules.
    """

    HEADING: ClassVar[str] = POOL

    strong: str | None = None
    weak: str | None = None
    rules: Path | None = None

    def open(self, router: str) -> LearnedRouter | RulesRouter:
        """The router of a bundle, or the rules.

        Raises:
            InputError: options were given that a bundle has no use for.
        """
        if router == RULES:
            return open_rules(self.strong, self.weak, self.rules)
        given = [f"--{name}" for name in ("strong", "weak", "rules") if getattr(self, name) is not None]
        if given:
            raise InputError(f"{', '.join(given)}: no effect on the bundle {router}; expected the router {RULES!r}")
        return load(router)


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


@dataclass(frozen=True)
class PolicyChoice(Options):
    """What decides between strong and weak; at most one is given.

    Attributes:
        threshold: Send a query to strong when its score is at or above this, from 0 to 1. Without --threshold,
            --strong-share and --guaranteed, the bundle's threshold decides.
        strong_share: Send this share of the queries to strong, from 0 to 1. The share holds for queries like those that
            the bundle was calibrated on.
        guaranteed: Use the threshold with a guaranteed quality that routelearn calibrate stored in the bundle. Fails
            when the bundle has none.
    """

    HEADING: ClassVar[str] = DECISION

    threshold: float | None = None
    strong_share: float | None = None
    guaranteed: bool = False

    def policy(self) -> Policy | None:
        """The policy that was chosen; None: the router's own threshold decides.

        Raises:
            InputError: more than one was given, or a value is out of its range.
        """
        return policy_of(self.threshold, self.strong_share, self.guaranteed)


@dataclass(frozen=True)
class RouterChoice(Options):
    """A router, the two models that it decides between, and what answers when it cannot.

    Attributes:
        router: Folder of a bundle, or the word "rules".
        strong: The strong model. Without it: the bundle's. Needed for "rules" and for --fallback.
        weak: The weak model. Without it: the bundle's. Needed for "rules" and for --fallback.
        rules: TOML file of rules. They decide when the router cannot. The default is the built-in rules.
        fallback: Let rules decide when the bundle does not load, instead of failing.
    """

    HEADING: ClassVar[str] = DECISION

    router: Annotated[str, Flag(is_argument=True)]
    strong: Annotated[str | None, Flag(panel=POOL)] = None
    weak: Annotated[str | None, Flag(panel=POOL)] = None
    rules: Path | None = None
    fallback: bool = False

    def open(
        self,
        *,
        threads: int | None = None,
        timeout_s: float | None = None,
        check: Callable[[], object] = lambda: None,
    ) -> FallbackRouter | RulesRouter:
        """Open the router.

        Args:
            threads: batches in flight; None: one for each CPU of this process.
            timeout_s: seconds after which rules decide a batch; None: no limit.
            check: called before a bundle is loaded; an error that it raises is as one of loading.

        Raises:
            BundleError: the bundle cannot be trusted, and --fallback was not given.
            InputError: the bundle lacks a model, or a file of rules cannot be read, and --fallback was not given.
        """
        rules = RulesRouter(
            self.strong or "strong", self.weak or "weak", rules=load_rules(self.rules) if self.rules else None
        )
        if self.router == RULES:
            return rules
        learned: Router | Exception
        try:
            check()
            learned = load(self.router, threads=threads)
        except Exception as error:
            if not self.fallback:
                raise
            learned = error
        router = FallbackRouter(learned, strong=self.strong, weak=self.weak, rules=rules, timeout_s=timeout_s)
        if router.unavailable and not self.fallback:
            raise InputError(f"{router.unavailable}; give --fallback to let rules decide instead")
        return router


def open_rules(strong: str | None, weak: str | None, rules: Path | None) -> RulesRouter:
    """The router that consists of rules alone, to be measured on records.

    Raises:
        InputError: a model is not named, or the file of rules cannot be read.
    """
    if strong is None or weak is None:
        raise InputError(f"the router {RULES!r} names no models; give --strong and --weak as the data calls them")
    return RulesRouter(strong, weak, rules=load_rules(rules) if rules else None)


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
