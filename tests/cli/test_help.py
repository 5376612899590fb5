"""What every command says of itself: -h, -V, an example, and help for every argument and flag."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from helpers.cli import run
from typer.testing import CliRunner

import routelearn
from routelearn.cli.main import app
from routelearn.cli.options import Reading
from routelearn.cli.train import WITHOUT_FLAG
from routelearn.data.parser import ReadOptions
from routelearn.service.defaults import RequestLimits, ServerSettings
from routelearn.training.bert.config import BertConfig
from routelearn.training.config import settings_of
from routelearn.training.frozen.config import FrozenConfig
from routelearn.training.matrix_factorization.config import MatrixFactorizationConfig
from routelearn.training.similarity.config import SimilarityConfig
from routelearn.training.verifier.config import VerifierConfig

ROOT: Any = typer.main.get_command(app)
RECIPES = {
    "mf": MatrixFactorizationConfig,
    "similarity": SimilarityConfig,
    "frozen": FrozenConfig,
    "bert": BertConfig,
    "verifier": VerifierConfig,
}
#: Settings whose flag has another name.
RENAMED = {("verifier", "models"): "--answers"}


def walk(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    if hasattr(command, "list_commands"):
        for name in command.list_commands(None):
            yield from walk(command.get_command(None, name), (*path, name))


COMMANDS = dict(walk(ROOT))
LEAVES = {path: command for path, command in COMMANDS.items() if not hasattr(command, "list_commands")}


def flags(path: tuple[str, ...]) -> dict[str, Any]:
    """The options of a command by each of their flags."""
    options = [item for item in COMMANDS[path].params if item.param_type_name == "option"]
    return {flag: option for option in options for flag in [*option.opts, *option.secondary_opts]}


def test_brackets_of_a_command_s_text_are_shown() -> None:
    shown = " ".join(run("proxy", "--help").stdout.split())
    assert "pip install 'litellm[proxy]' 'routelearn[litellm]'" in shown


def test_these_are_the_commands() -> None:
    assert [" ".join(path) for path in LEAVES] == [
        "build", "next-labels", "collect", "judge", "label",
        "data validate", "data sample", "data convert", "data from-log",
        "train mf", "train similarity", "train frozen", "train bert", "train general", "train verifier",
        "adapt", "extend", "inspect", "export", "evaluate", "calibrate", "cascade-plan", "replay", "savings",
        "route", "score", "serve", "litellm-config", "proxy",
    ]  # fmt: skip


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_teaches(path: tuple[str, ...], flag: str) -> None:
    result = CliRunner().invoke(app, [*path, flag])
    assert result.exit_code == 0, result.output
    shown = " ".join(result.stdout.split())
    assert "routelearn" in shown
    first = re.split(r"(?<=\.) ", " ".join((COMMANDS[path].help or "").split()))[0]
    assert 20 < len(first) < 160, first
    if path:
        assert re.search("Examples?: routelearn", shown)


@pytest.mark.parametrize("flag", ["-V", "--version"])
def test_the_version(flag: str) -> None:
    result = CliRunner().invoke(app, [flag])
    assert (result.exit_code, result.stdout) == (0, f"routelearn {routelearn.__version__}\n")


def test_python_m_routelearn() -> None:
    done = run("-V")
    assert (done.returncode, done.stdout) == (0, f"routelearn {routelearn.__version__}\n")
    assert run("-h").returncode == 0
    assert run("train", "mf", "-h").returncode == 0


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_argument_and_flag_has_a_sentence(path: tuple[str, ...]) -> None:
    for item in LEAVES[path].params:
        assert item.help, item.name
        assert item.help.endswith("."), item.help
        assert item.help[0].isupper() or item.help.startswith(("text: ", "auto: ")), item.help
        assert "None" not in item.help, item.help
        assert "`" not in item.help, item.help


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_setting_of_a_recipe_has_a_flag(recipe: str) -> None:
    config = RECIPES[recipe]
    options = flags(("train", recipe))
    for setting in settings_of(config):
        flag = RENAMED.get((recipe, setting.name), "--" + setting.name.replace("_", "-"))
        if setting.name in WITHOUT_FLAG and flag == "--" + setting.name:
            assert options["--models"].name == "models"  # that of the data
            continue
        option = options[flag]
        assert option.help.startswith(setting.help)
        default = list(setting.default) if isinstance(setting.default, tuple) else setting.default
        assert option.default == default


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_ranges_of_numbers_are_stated(recipe: str) -> None:
    options = flags(("train", recipe))
    for setting in settings_of(RECIPES[recipe]):
        if re.search(r"\bnumber\b", setting.expected) and setting.name not in WITHOUT_FLAG:
            assert "Range: " in options["--" + setting.name.replace("_", "-")].help


def test_every_read_option_has_a_flag() -> None:
    names = {"columns": "--map", "aliases": "--alias"}
    options = flags(("data", "validate"))
    for item in dataclasses.fields(ReadOptions):
        assert names.get(item.name, "--" + item.name.replace("_", "-")) in options
    assert Reading().options() == ReadOptions()


@pytest.mark.parametrize("settings", [RequestLimits, ServerSettings])
def test_every_setting_of_the_service_has_a_flag(settings: type[Any]) -> None:
    options = flags(("serve",))
    for item in dataclasses.fields(settings):
        assert options["--" + item.name.removesuffix("_s").replace("_", "-")].default == item.default


@pytest.mark.parametrize("path", [("data",), ("train",), ("no-such-command",), ("train", "no-such-recipe")])
def test_a_command_that_is_missing_or_unknown_exits_with_2(path: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, list(path))
    assert result.exit_code == 2
