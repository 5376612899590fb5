"""`routelearn replay`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from rich.table import Table

from ..routers.errors import InputError
from ..training.libraries import require_training
from .flags import Flag, Options, with_flags
from .input_files import read_pool
from .options import DATA, OUTPUT, POOL, Reading, check_report_folder, table_console
from .outputs import Overwrite
from .router_options import RouterChoice
from .terminal import Console

if TYPE_CHECKING:
    from ..evaluation.session_replay.compare import SessionReport


@dataclass(frozen=True)
class ReplayOptions(Options):
    """Which conversations to replay, and at which prices.

    Attributes:
        data: Table of conversations: records with the scores of both models and a column session; turn, tokens,
            output_tokens and pause_s are optional. The router may not be trained on it.
        log: Instead of a table, a decision log with the usage of its calls, as the LiteLLM plug-ins write it. The
            qualities are then those that the router expects by its scores.
        pool: JSON or TOML file with name, input_price, output_price and cached_input_price of each model, in USD per
            million tokens. The default is the prices in the bundle.
        threshold: Scores at or above it go to the strong model. The default is the router's.
        usd_per_session: Say which threshold gives the best quality at this mean cost of a session.
        max_quality_loss: Say which threshold is the cheapest whose mean quality is at most so far below always strong.
        cache_ttl: Time, in seconds, for which a provider's prompt cache holds what was read last.
        answer_value_usd: How many USD a good answer is worth more than a bad one. The default is what the threshold
            says.
        bootstrap: Number of bootstrap resamples of the sessions for the 95 % intervals.
        seed: Random seed: the same seed gives the same figures.
        output: Folder for the report: replay.html and replay.json.
    """

    HEADING: ClassVar[str] = "Replay"

    data: Annotated[str | None, Flag(metavar="FILE", panel=DATA)] = None
    log: Annotated[Path | None, Flag(panel=DATA)] = None
    pool: Annotated[Path | None, Flag(panel=POOL)] = None
    threshold: float | None = None
    usd_per_session: Annotated[float | None, Flag(metavar="USD")] = None
    max_quality_loss: float | None = None
    cache_ttl: Annotated[float, Flag(metavar="SECONDS")] = 300.0
    answer_value_usd: Annotated[float | None, Flag(metavar="USD")] = None
    bootstrap: Annotated[int, Flag(least=2, panel="Intervals")] = 1000
    seed: Annotated[int, Flag(panel="Intervals")] = 0
    output: Annotated[Path | None, Flag(short="-o", panel=OUTPUT)] = None


@with_flags
def replay_command(choice: RouterChoice, options: ReplayOptions, reading: Reading, overwrite: Overwrite) -> None:
    """Replay conversations: what routing costs with prompt caches, prompt by prompt and session by session.

    A model that has not read a conversation reads it at the full price. The report says what that costs where each
    prompt is routed by itself, and what sessions that weigh the price of a switch save at the same quality.

    Example: routelearn replay router/ --data sessions.parquet --pool models.toml

    Example: routelearn replay router/ --log decisions.jsonl --pool models.toml
    """
    require_training()
    from ..evaluation.session_replay.compare import calibrate_sessions, evaluate_session_log, evaluate_sessions
    from ..evaluation.session_replay.read import read_sessions
    from ..evaluation.session_replay.report import HTML, JSON, write_session_report

    check_report_folder(options.output)
    if options.output is not None:
        overwrite.check(options.output / HTML, options.output / JSON)
    if options.usd_per_session is not None and options.max_quality_loss is not None:
        raise InputError("--usd-per-session and --max-quality-loss were both given; expected one of them")
    if (options.data is None) == (options.log is None):
        raise InputError("expected one of --data FILE and --log FILE")
    console = Console(stderr=True)
    router = choice.open()
    assumed: dict[str, Any] = {
        "threshold": options.threshold,
        "cache_ttl_s": options.cache_ttl,
        "value_usd": options.answer_value_usd,
        "bootstrap": options.bootstrap,
        "seed": options.seed,
    }
    prices = read_pool(options.pool)
    with console.status("replaying"):
        if options.log is not None:
            report = evaluate_session_log(router, options.log, prices, **assumed)
        else:
            report = evaluate_sessions(router, read_sessions(str(options.data), reading.options()), prices, **assumed)
    show(report)
    out = table_console()
    if options.usd_per_session is not None or options.max_quality_loss is not None:
        threshold = calibrate_sessions(
            report, usd_per_session=options.usd_per_session, max_quality_loss=options.max_quality_loss
        )
        usd, quality = next((usd, quality) for at, usd, quality in report.curves["sessions"] if at == threshold)
        out.print(f"take the threshold {threshold:.4f}: {usd:.4f} USD a session, mean quality {quality:.4f}")
    if options.output is not None:
        write_session_report(report, options.output)
        console.print(f"wrote {options.output / HTML} and {options.output / JSON}", markup=False)


def show(report: SessionReport) -> None:
    """Print a report."""
    from ..evaluation.session_replay.report import HEADINGS, cells, sentence

    console = table_console()
    console.print(sentence(report), highlight=False)
    table = Table(title=f"{report.sessions:,} sessions, {report.requests:,} requests", title_justify="left")
    for number, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="right" if number else "left")
    for row in cells(report):
        table.add_row(*row)
    console.print(table)
