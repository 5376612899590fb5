"""From dataclasses to flags."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from routelearn.cli.flags import Flag, FlagsOf, Options, with_flags
from routelearn.training.config import Config, flag, name_list, number, one_of, whole


@dataclass(frozen=True)
class Group(Options):
    """Options of the command line.

    Attributes:
        what: What it is.
        names: Names of things.
        path: A path.
        count: A count
        last: The last.
    """

    HEADING: ClassVar[str] = "Things"

    what: Annotated[str, Flag(is_argument=True)]
    names: Annotated[list[str] | None, Flag("--name", metavar="NAME")] = None
    path: Annotated[Path, Flag(short="-p", panel="Output")] = Path("here")
    count: Annotated[int, Flag(least=1, most=9)] = 2
    last: bool = False


@dataclass(frozen=True)
class Limits:
    """Limits of another room.

    Attributes:
        most: most of everything
            there is; beyond it 429.
        wait_s: seconds to wait.
    """

    most: int = 8
    wait_s: float = 1.5


@dataclass(frozen=True, kw_only=True)
class Settings(Config):
    """Settings of a recipe.

    Attributes:
        rank: The rank.
        share: The share.
        word: The word.
        parts: The parts.
        deep: Go deep.
        hidden: Has no flag.
        old: Has another flag.
    """

    rank: Annotated[int, whole(1)] = 3
    share: Annotated[float | None, number(above=0).or_none()] = None
    word: Annotated[Literal["a", "b"], one_of("a", "b")] = "a"
    parts: Annotated[tuple[str, ...], name_list()] = ("x", "y")
    deep: Annotated[bool, flag()] = True
    hidden: Annotated[int, whole(0)] = 0
    old: Annotated[int, whole(0, 9)] = 0


received: list[Any] = []
APP = typer.Typer()


@APP.command()
@with_flags
def command(
    group: Group,
    limits: Annotated[Limits, FlagsOf(panel="Limits")],
    settings: Annotated[dict[str, Any], FlagsOf(Settings, renamed={"old": "--new-one"}, without=("hidden",))],
) -> None:
    """A command.

    Its second paragraph stands in
    two lines.
    """
    received.append((group, limits, settings))


def run(*arguments: str) -> Result:
    received.clear()
    return CliRunner().invoke(APP, list(arguments))


def test_without_flags_the_command_gets_the_defaults() -> None:
    assert run("it").exit_code == 0
    assert received == [(Group("it"), Limits(), {})]


def test_flags_become_the_fields_of_their_groups() -> None:
    arguments = "--name a --name b -p there --count 9 --last --most 9 --wait 2"
    arguments += " --rank 3 --no-deep --parts z --new-one 4 --word b"
    assert run("it", *arguments.split()).exit_code == 0
    settings = {"rank": 3, "deep": False, "parts": ("z",), "old": 4, "word": "b"}
    assert received == [(Group("it", ["a", "b"], Path("there"), 9, True), Limits(9, 2.0), settings)]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--hidden", "1"),
        ("--old", "1"),
        ("--wait-s", "1"),
        ("--word", "c"),
        ("--rank", "x"),
        ("--count", "10"),
        ("--no-last",),
    ],
)
def test_what_is_no_flag_or_no_value_is_refused(arguments: tuple[str, ...]) -> None:
    assert run("it", *arguments).exit_code == 2
    assert received == []


def test_a_paragraph_of_the_help_is_one_line() -> None:
    assert typer.main.get_command(APP).help == "A command.\n\nIts second paragraph stands in two lines."


def test_help_ranges_defaults_and_headings_come_from_the_dataclasses() -> None:
    options: dict[str | None, Any] = {item.name: item for item in typer.main.get_command(APP).params}
    assert options["name"].help == "Names of things."
    assert (options["name"].metavar, options["name"].rich_help_panel) == ("NAME", "Things")
    assert options["path"].opts == ["--path", "-p"]
    assert options["path"].rich_help_panel == "Output"
    assert options["count"].help == "A count."
    assert options["what"].param_type_name == "argument"
    assert options["most"].help == "Most of everything there is; beyond it 429."
    assert (options["most"].default, options["most"].rich_help_panel) == (8, "Limits")
    assert options["wait"].metavar == "SECONDS"
    assert options["rank"].help == "The rank. Range: 1 or more."
    assert (options["rank"].default, options["rank"].rich_help_panel) == (3, "Training")
    assert options["share"].help == "The share. Range: above 0."
    assert options["new_one"].help == "Has another flag. Range: 0 to 9."
    assert options["word"].help == "The word."
    assert options["deep"].secondary_opts == ["--no-deep"]
    assert options["parts"].default == ["x", "y"]
