"""What counts as an agent's traffic: lists that users extend, and what a request of an agent turned out to be."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from ..routers.checks import check_whole
from ..routers.errors import InputError
from .agent_lists import FAILING, HOUSEKEEPING, INJECTED, OPENINGS, POLLING, RESULT_TEXTS, WRAPPERS

#: What a request of an agent is.
TurnKind = Literal["user", "step", "housekeeping"]


@dataclass(frozen=True, slots=True)
class AgentTurn:
    """What a request is, and whether its agent goes round in circles.

    Attributes:
        kind: "user": the turn is a user's; "step": the request goes on after tool calls within a turn; "housekeeping":
            the client asks for a title, a summary, tags and the like.
        failures: steps in a row, up to the end of the current turn, of which every tool result failed. (Calls that
            are made at once are one step.)
        repeats: how often the last tool call (same name, same arguments) was made in a row, or in a cycle of two or
            three calls, within the current turn; 0: there is no tool call.
        why: for housekeeping: the rule that fired; otherwise empty.

    Example:
        >>> from routelearn.policies import AgentTurn, agent_turn_of
        >>> agent_turn_of({"messages": [{"role": "user", "content": "Hi"}]}) == AgentTurn("user")
        True
    """

    kind: TurnKind
    failures: int = 0
    repeats: int = 0
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class AgentRules:
    r"""The lists by which agents' requests are read. Extend one: ``AgentRules(injected=[*INJECTED, "my-notes"])``.

    Regular expressions are case-sensitive, and match at the beginning of a text, after white space.

    Attributes:
        injected: tags of blocks that agents add to a user's turn, without angle brackets; a compiled pattern is left
            out wherever it matches.
        wrappers: tags around the user's own words; the rest of such a turn is left out.
        openings: regular expressions of what agents write at the beginning of a user's turn; it is left out.
        result_texts: regular expressions of the beginnings of user turns that bring the result of a tool as text.
        failing: regular expressions of the beginnings of results of tools that failed.
        polling: regular expressions of the names of tools that wait for something; they count as no repeats.
        housekeeping: names of rules, and regular expressions of the beginning of a system prompt or of the last user
            turn.
        max_failures: so many failing steps in a row are a loop.
        max_repeats: a tool call made so often in a row, or in a cycle, is a loop.

    Example:
        >>> from routelearn.policies import AgentRules, AgentTurn, without_injected
        >>> rules = AgentRules(injected=["my-notes"], max_failures=2)
        >>> without_injected("<my-notes>It is Monday.</my-notes>\nFix the bug.", rules)
        'Fix the bug.'
        >>> rules.loops(AgentTurn("step", failures=2))
        '2 steps in a row whose tool calls failed'
    """

    injected: Sequence[str | re.Pattern[str]] = INJECTED
    wrappers: Sequence[str] = WRAPPERS
    openings: Sequence[str] = OPENINGS
    result_texts: Sequence[str] = RESULT_TEXTS
    failing: Sequence[str] = FAILING
    polling: Sequence[str] = POLLING
    housekeeping: Sequence[tuple[str, str]] = HOUSEKEEPING
    max_failures: int = 3
    max_repeats: int = 3
    compiled: CompiledRules = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Compile the lists.

        Raises:
            InputError: an entry is no text or no regular expression, or a limit is below 1.
        """
        for name in ("max_failures", "max_repeats"):
            check_whole(name, getattr(self, name), 1)
        for name in ("injected", "wrappers", "openings", "result_texts", "failing", "polling", "housekeeping"):
            if isinstance(getattr(self, name), str) or not isinstance(getattr(self, name), Sequence):
                raise InputError(f"{name} is {getattr(self, name)!r:.80}; expected a list")
        object.__setattr__(self, "compiled", CompiledRules(self))

    def loops(self, turn: AgentTurn) -> str | None:
        """Why an agent goes round in circles, so that its session should be escalated; None: it does not."""
        if turn.failures >= self.max_failures:
            return f"{turn.failures} steps in a row whose tool calls failed"
        if turn.repeats >= self.max_repeats:
            return f"the same tool calls {turn.repeats} times in a row"
        return None


class CompiledRules:
    """The lists of `AgentRules` as patterns.

    Attributes:
        tags: the opening tag of an injected block, by the group "tag".
        patterns: what else is left out, anywhere.
        wrappers: the opening tag around a user's own words, by the group "tag".
        openings: what is left out at the beginning.
        results: the beginning of the result of a tool.
        failing: the beginning of the result of a tool that failed.
        polling: the name of a tool that waits.
        housekeeping: any of the rules.
        named: each of them, by its name.
    """

    def __init__(self, rules: AgentRules) -> None:
        """Compile the lists.

        Raises:
            InputError: an entry is no text or no regular expression.
        """
        self.patterns = [entry for entry in rules.injected if isinstance(entry, re.Pattern)]
        self.tags = _tags("injected", [entry for entry in rules.injected if not isinstance(entry, re.Pattern)])
        self.wrappers = _tags("wrappers", rules.wrappers)
        self.openings = _any_of("openings", rules.openings)
        self.results = _any_of("result_texts", rules.result_texts)
        self.failing = _any_of("failing", rules.failing)
        self.polling = _any_of("polling", rules.polling)
        for entry in rules.housekeeping:
            if not isinstance(entry, (tuple, list)) or len(entry) != 2 or not isinstance(entry[0], str) or not entry[0]:
                raise InputError(f"housekeeping has {entry!r:.80}; expected a name and a regular expression")
        self.named = [(name, _compiled("housekeeping", pattern)) for name, pattern in rules.housekeeping]
        self.housekeeping = _any_of("housekeeping", [pattern for _, pattern in rules.housekeeping])


@cache
def default_rules() -> AgentRules:
    """The rules with every list as it comes; compiled once in a process."""
    return AgentRules()


#: Matches nothing.
_NOTHING = re.compile(r"(?!)")


def _tags(name: str, tags: Sequence[Any]) -> re.Pattern[str]:
    for tag in tags:
        if not isinstance(tag, str) or not re.fullmatch(r"\w[\w .:-]*", tag):
            raise InputError(f"{name} has {tag!r:.80}; expected a tag without angle brackets, such as 'my-notes'")
    # Grouped by their first letter, so that text with many other tags is read fast.
    firsts = sorted({tag[0] for tag in tags})
    groups = [f"{first}(?:{'|'.join(re.escape(tag[1:]) for tag in tags if tag[0] == first)})" for first in firsts]
    names = "|".join(groups)
    return re.compile(rf"<(?P<tag>{names})(?:\s[^<>]{{0,1000}})?>") if names else _NOTHING


def _any_of(name: str, expressions: Sequence[Any]) -> re.Pattern[str]:
    """One pattern that matches where any of the expressions does."""
    for expression in expressions:
        _compiled(name, expression)
    return _compiled(name, "|".join(f"(?:{one})" for one in expressions)) if expressions else _NOTHING


def _compiled(name: str, expression: object) -> re.Pattern[str]:
    if not isinstance(expression, str) or not expression:
        raise InputError(f"{name} has {expression!r:.80}; expected a regular expression as a text")
    try:
        return re.compile(expression)
    except re.error as error:
        raise InputError(f"{name} has {expression!r:.80}, which is no regular expression: {error}") from error
