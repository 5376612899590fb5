"""`routelearn route`."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from ..routers.query import Query, parse_messages
from .flags import with_flags
from .options import PolicyChoice, RouterChoice, RouterName


@with_flags
def route_command(
    router: RouterName,
    text: Annotated[str, typer.Argument(help='The query; "-" reads it from standard input.')],
    policy: PolicyChoice,
    choice: RouterChoice,
    chat: Annotated[
        bool, typer.Option("--chat", help='The query is a chat: a JSON list of {"role": ..., "content": ...}.')
    ] = False,
    tier: Annotated[
        str | None, typer.Option(metavar="NAME", help="The user tier of whoever asks, for rules that use it.")
    ] = None,
) -> None:
    """Decide which model should answer one query, and print the decision as JSON: model, score, threshold and reason.

    Example: routelearn route router/ "Prove that the square root of 2 is irrational."
    """
    chosen = choice.open(router)
    content = sys.stdin.read() if text == "-" else text
    query: Query = parse_messages(content) if chat else content
    context = {"tier": tier} if tier else None
    decision = chosen.route(query, policy.policy(), context)
    sys.stdout.write(json.dumps(decision.as_dict(), indent=1) + "\n")
