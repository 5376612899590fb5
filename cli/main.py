"""The command line: a thin skin over the API.

Exit codes: 0 when all went well; 2 when the caller can mend it (bad input, a bundle that cannot be trusted, a missing
extra); 3 when `train` made a bundle that is no better than none, or when judges agree too little with people; 1 for
every other failure.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from .. import __version__
from ..routers.errors import BundleError, InputError, MissingExtraError, RoutelearnError
from .adapt import adapt_command
from .build import build_command
from .calibrate import calibrate_command
from .cascade_plan import cascade_plan_command
from .collect import collect_command
from .data import app as data_app
from .evaluate import evaluate_command
from .export import export_command
from .extend import extend_command
from .inspect import inspect_command
from .judge import judge_command
from .label import label_command
from .litellm_config import litellm_config_command
from .next_labels import next_labels_command
from .proxy import proxy_command
from .replay import replay_command
from .route import route_command
from .savings import savings_command
from .score import score_command
from .serve import serve_command
from .terminal import shown
from .train import app as train_app


class _InOrder(TyperGroup):
    """A group whose `--help` lists groups and commands together, in the order of `_COMMANDS`."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names of the commands."""
        return [name for _, commands in _COMMANDS for name in commands]


#: The commands by the heading of `--help` that they stand under.
_COMMANDS: list[tuple[str, dict[str, Any]]] = [
    (
        "From prompts to a router",
        {
            "build": build_command,
            "next-labels": next_labels_command,
            "collect": collect_command,
            "judge": judge_command,
            "label": label_command,
        },
    ),
    (
        "Data and routers",
        {
            "data": data_app,
            "train": train_app,
            "adapt": adapt_command,
            "extend": extend_command,
            "inspect": inspect_command,
            "export": export_command,
        },
    ),
    (
        "What a router is worth",
        {
            "evaluate": evaluate_command,
            "calibrate": calibrate_command,
            "cascade-plan": cascade_plan_command,
            "replay": replay_command,
            "savings": savings_command,
        },
    ),
    (
        "Routing",
        {
            "route": route_command,
            "score": score_command,
            "serve": serve_command,
            "litellm-config": litellm_config_command,
            "proxy": proxy_command,
        },
    ),
]

app = typer.Typer(
    cls=_InOrder,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _heading, _commands in _COMMANDS:
    for _name, _command in _commands.items():
        if isinstance(_command, typer.Typer):
            app.add_typer(_command, name=_name, rich_help_panel=_heading)
        else:
            app.command(_name, rich_help_panel=_heading)(_command)


def _print_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"routelearn {__version__}\n")
        raise typer.Exit


@app.callback()
def routelearn(
    version: Annotated[
        bool,
        typer.Option("--version", "-V", help="Print the version and exit.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Learn, from your own preference data, when the cheap model is enough.

    A router reads a query and decides whether a strong model or a weak, cheaper one should answer. First steps, on
    records that are made up:

      routelearn data sample sample/

      routelearn train mf --data sample/performance.jsonl --out router/ --strong sim-max --weak sim-small

      routelearn route router/ "Prove that the square root of 2 is irrational."

    Each command explains itself: routelearn COMMAND --help
    """


def main() -> None:
    """Run the command line with the exit codes of the module's docstring."""
    try:
        app()
    except (InputError, BundleError, MissingExtraError) as error:
        sys.stderr.write(f"error: {shown(str(error))}\n")
        sys.exit(2)
    except (RoutelearnError, OSError) as error:
        sys.stderr.write(f"failed: {shown(str(error))}\n")
        sys.exit(1)
