"""`routelearn label`: compare two answers by hand, on a page in the browser."""

from __future__ import annotations

import signal
import webbrowser
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from ..labelling.answers import read_answers
from ..labelling.journal import journal_of
from ..labelling.vote_records import VoteSummary
from ..labelling.votes import Votes
from ..monitoring.limits import wilson
from ..routers.errors import InputError, require
from .flags import Flag, Options, with_flags
from .options import DATA, OUTPUT, POOL, parse_pairs
from .terminal import Console

#: The addresses that the page takes, as its check of the header host does.
LOCAL_HOSTS = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class LabelOptions(Options):
    """What to compare.

    Attributes:
        answers: Files of answers, as collect writes them: a table with the columns prompt, model and response.
        out: The records to write: .jsonl, .parquet or .csv. The votes stand in OUT.journal, from which the same command
            goes on.
        strong: Compare this model with the one of --weak. By default any two models that answered the same prompt
            are compared, each pair of models about equally often.
        weak: Compare this model with the one of --strong.
        columns: Read a column under another name, as in --map response=output. Can be repeated.
        labeller: Who votes. The records have this name in the column source.
        repeat_share: Share of the pairs that come a second time, with sides swapped, to measure how often the labeller
            votes the same again.
        limit: Compare at most so many pairs. By default all are compared.
        seed: Seed of the order, the sides and the repeats.
    """

    answers: Annotated[list[str], Flag(is_argument=True)]
    out: Annotated[Path, Flag(short="-o", panel=OUTPUT)]
    strong: Annotated[str | None, Flag(metavar="NAME", panel=POOL)] = None
    weak: Annotated[str | None, Flag(metavar="NAME", panel=POOL)] = None
    columns: Annotated[list[str] | None, Flag("--map", metavar="OURS=THEIRS", panel=DATA)] = None
    labeller: Annotated[str, Flag(metavar="NAME")] = "human"
    repeat_share: Annotated[float, Flag(least=0, most=1)] = 0.1
    limit: Annotated[int | None, Flag(least=1)] = None
    seed: Annotated[int, Flag(least=0)] = 0


@dataclass(frozen=True)
class PageOptions(Options):
    """Where the page is.

    Attributes:
        host: Address to listen on. Only this machine may reach it.
        port: Port to listen on; 0 takes any free port.
        open_browser: Open the page in the browser.
    """

    HEADING: ClassVar[str] = "Page"

    host: str = "127.0.0.1"
    port: Annotated[int, Flag(least=0, most=65_535)] = 0
    open_browser: Annotated[bool, Flag("--open")] = False

    def check(self) -> None:
        """Refuse an address that other machines can reach.

        Raises:
            InputError: it is none of `LOCAL_HOSTS`.
        """
        if self.host not in LOCAL_HOSTS:
            raise InputError(f"--host is {self.host!r}; expected 127.0.0.1, ::1 or localhost, which only you can reach")


@with_flags
def label_command(options: LabelOptions, page: PageOptions) -> None:
    """Compare two answers by hand, blind, on a page in your browser.

    The command prints the address of the page. Keys: 1 or left, 2 or right, t for a tie, b for two bad answers, s to
    skip, u to undo. Each vote is on the disk at once: after a kill, the same command goes on. Ctrl-C ends it.

    Example: routelearn label answers.parquet --strong gpt-4o --weak gpt-4o-mini --out labels.jsonl --open
    """
    for module in ("fastapi", "httptools", "uvicorn", "prometheus_client"):
        require(module, "serve")
    page.check()
    from ..labelling.label_page import new_token, serve_labels
    from ..service.http.listening import listen

    console = Console(stderr=True)
    with console.status("reading"):
        answers = read_answers(options.answers, parse_pairs(options.columns or [], "--map"))
    with Votes(
        answers,
        options.out,
        strong=options.strong,
        weak=options.weak,
        labeller=options.labeller,
        repeat_share=options.repeat_share,
        limit=options.limit,
        seed=options.seed,
    ) as votes:
        done, total = votes.progress()
        console.print(f"{len(votes.pairs):,} pairs; {done:,} of {total:,} votes are there", soft_wrap=True)
        token = new_token()
        listening = listen(page.host, page.port)
        listening.listen()  # whoever reads the address may ask at once
        host = f"[{page.host}]" if ":" in page.host else page.host
        url = f"http://{host}:{listening.getsockname()[1]}/{token}/"
        console.print(f"open {url} (Ctrl-C ends)", soft_wrap=True)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with suppress(KeyboardInterrupt):  # how a person ends the command
            if page.open_browser:
                webbrowser.open(url)
            serve_labels(votes, listening, token)
        votes.write()
        for line in _summary(votes.summary(), options.out):
            console.print(line, soft_wrap=True)


def _summary(found: VoteSummary, out: Path) -> list[str]:
    if not found.votes:
        return [f"no votes; {out} was not written"]
    lines = [f"{found.votes:,} votes are in {out}, and in {journal_of(out)}, from which the same command goes on"]
    lines += [f"{model} is better in {count:,} pairs" for model, count in found.wins.items()]
    lines.append(f"ties: {found.ties:,}, {found.both_bad:,} of them with two bad answers; skipped: {found.skipped:,}")
    decided = found.votes - found.ties
    if decided:
        lines.append(f"pairs won by the left answer: {_share(found.left, decided)}")
    if found.repeats:
        lines.append(f"second votes that equal the first: {_share(found.agreed, found.repeats)}")
    else:
        lines.append("no pair had a second vote, so that the labeller is not measured")
    return lines


def _share(count: int, of: int) -> str:
    low, high = wilson(count, of)
    return f"{count:,} of {of:,} ({count / of:.0%}, 95 % interval {low:.0%} to {high:.0%})"
