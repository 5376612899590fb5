"""`routelearn route`."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Annotated

from ..routers.explanation import explain
from ..routers.query import Query, parse_messages
from .flags import Flag, Options, with_flags
from .router_options import PolicyChoice, RouterChoice


@dataclass(frozen=True)
class RouteOptions(Options):
    """The query, and who asks.

    Attributes:
        text: The query; "-" reads it from standard input.
        chat: The query is a chat: a JSON list of {"role": ..., "content": ...}.
        tier: The user tier of whoever asks, for rules that use it.
        explain: Print why, in words, instead of the JSON: difficulty, abilities, expected quality,
            nearest training records and rules.
    """

    text: Annotated[str, Flag(is_argument=True)]
    chat: bool = False
    tier: Annotated[str | None, Flag(metavar="NAME")] = None
    explain: bool = False


@with_flags
def route_command(choice: RouterChoice, options: RouteOptions, policy: PolicyChoice) -> None:
    """Decide which model should answer one query, and print the decision as JSON: model, score, threshold and reason.

    Example: routelearn route router/ "Prove that the square root of 2 is irrational."
    """
    router = choice.open()
    content = sys.stdin.read() if options.text == "-" else options.text
    query: Query = parse_messages(content) if options.chat else content
    context = {"tier": options.tier} if options.tier else None
    if options.explain:
        sys.stdout.write(f"{explain(router, query, context, policy.policy())}\n")
        return
    decision = router.route(query, policy.policy(), context)
    sys.stdout.write(json.dumps(decision.as_dict(), indent=1) + "\n")
