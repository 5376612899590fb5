"""What a request of an agent is: a user's turn, a step within one, or housekeeping; and whether the agent loops."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from ..routers.messages import as_mapping
from ..routers.query import REQUEST_FIELDS
from .agent_rules import AgentRules, AgentTurn, CompiledRules, default_rules
from .failing_results import failed
from .housekeeping import housekeeping_of, texts_of
from .injected import CONTENT_FIELDS, is_of_user, own_text, text_of_part
from .tool_steps import Call, Result, call_in_text, repeats_of, steps_of, steps_of_parts

_USER = AgentTurn("user")
#: How many messages are looked back at: the next number where a loop may be longer, and no more than the last.
_LOOK_BACK = (24, 400)
#: The most tool calls that are compared.
_MOST_CALLS = 400
#: The result of a tool that is what the user said: answers to questions, reasons for refusals. Claude Code; Cline and
#: Roo Code.
_SAID_BY_THE_USER = re.compile(
    r"\s*(?:User has answered your questions:"
    r"|The user doesn't want to proceed with this tool use\.[^\n]{0,300}the user said:"
    r"|(?:\[[^\n]{0,500}\] Result:\s*)?(?:The user [^<]{0,300})?<(?:feedback|answer|user_message|task)>)"
)


def agent_turn_of(request: Mapping[str, Any], rules: AgentRules | None = None) -> AgentTurn:
    """Read what a request of an agent is.

    The current turn begins with the last message that holds a user's own words: results of tools, in whatever form,
    and blocks that agents add are none. A request that cannot be read is a user's turn.

    Args:
        request: the body of OpenAI's chat, Responses or completions API, of Anthropic's, Gemini's or Bedrock's.
        rules: what counts as what; None: the lists that come with routelearn.
    """
    rules = rules or default_rules()
    compiled = rules.compiled
    items = _items(request)
    why = housekeeping_of(request, items, compiled)
    if why:
        return AgentTurn("housekeeping", why=why)
    if not items or _begins_turn(items[-1], compiled):
        return _USER
    turn = _USER
    for count in _LOOK_BACK:
        steps = _current_turn(items[-count:], compiled)
        rounds, calls = _rounds_of(steps), [step for step in steps if isinstance(step, Call)]
        waits = compiled.polling.match
        acting = [call for call in calls[-_MOST_CALLS:] if waits(call.name[:100]) is None]
        failures, repeats = _failures_of(rounds, compiled), repeats_of(acting)
        if rounds or calls:
            turn = AgentTurn("step", failures, repeats)
        if count >= len(items) or (failures + 1 < len(rounds) and 3 * (repeats + 1) <= len(acting)):
            break  # what came before changes nothing
    return turn


def _items(request: Mapping[str, Any]) -> Sequence[Any]:
    """The messages of a request."""
    for field in REQUEST_FIELDS:
        value = request.get(field)
        if not value:
            continue
        if isinstance(value, str):
            return [{"role": "user", "content": value}]
        if isinstance(value, (list, tuple)):
            return value if not isinstance(value[-1], str) else [{"role": "user", "content": value[-1]}]
        return [value] if as_mapping(value) is not None else []
    return []


def _begins_turn(item: Any, rules: CompiledRules) -> bool:
    """Whether an item holds a user's own words."""
    known = item if type(item) is dict else as_mapping(item) or {}
    if not is_of_user(known):
        return known.get("role") in ("tool", "function") and _is_said(known)
    texts = texts_of(known)
    if texts and _is_result(texts[0], rules):
        return False
    for text in texts:
        if _has_own_words(text, rules):
            return True
    parts = next((known[name] for name in CONTENT_FIELDS if known.get(name) is not None), None)
    if not isinstance(parts, (list, tuple)):
        return False
    steps = list(steps_of_parts(parts))
    if steps:
        return any(isinstance(step, Result) and _is_said(step.body) for step in steps)
    return any(text_of_part(part) is None for part in parts)  # an image alone


def _has_own_words(text: str, rules: CompiledRules) -> bool:
    """Whether a text of a user's turn holds more than what the agent added."""
    if text[:1].isalnum() and not rules.patterns and rules.openings.match(text) is None:
        return True  # blocks begin with a tag
    return bool(own_text(text, rules).strip())


def _is_result(text: str, rules: CompiledRules) -> bool:
    """Whether a text of a user's turn is the result of a tool, and holds no words of the user."""
    start = 0 if text[:1] > " " else len(text) - len(text.lstrip())
    return rules.results.match(text, start) is not None and _SAID_BY_THE_USER.match(text) is None


def _is_said(body: Any) -> bool:
    """Whether the result of a tool is what the user said."""
    content = body.get("content") if isinstance(body, Mapping) else None
    if isinstance(content, (list, tuple)):
        content = text_of_part(content[0]) if content else None
    return isinstance(content, str) and _SAID_BY_THE_USER.match(content) is not None


def _current_turn(items: Sequence[Any], rules: CompiledRules) -> list[Call | Result | None]:
    """The calls and the results of the current turn, the oldest first; None: an answer, which ends a step."""
    backwards: list[Call | Result | None] = []
    wants_text = False  # what follows is the result of a call that the assistant wrote in its text
    for item in reversed(items):
        known = item if type(item) is dict else as_mapping(item)
        if known is None:
            continue
        if is_of_user(known):
            if _begins_turn(known, rules):
                break
            texts = texts_of(known)
            wants_text = bool(texts) and _is_result(texts[0], rules)
            found: list[Call | Result] = [Result(_without_head("\n".join(texts), rules))] if wants_text else []
            if not wants_text:
                found += steps_of_parts(known.get("content") or known.get("parts"))
            backwards += reversed(found)
            continue
        steps = steps_of(known)
        if steps is None:
            continue
        written = call_in_text(known) if wants_text and not steps else None
        wants_text = False
        backwards += [written] if written is not None else reversed(steps)
        if not steps:
            backwards.append(None)
    return backwards[::-1]


def _rounds_of(steps: Sequence[Call | Result | None]) -> list[list[tuple[Result, Call | None]]]:
    """The results of the steps, each with its call: calls that were made at once are one step."""
    by_id = {step.id: step for step in steps if isinstance(step, Call) and isinstance(step.id, str)}
    rounds: list[list[tuple[Result, Call | None]]] = []
    last: Call | None = None
    for is_result, group in groupby(steps, key=lambda step: isinstance(step, Result)):
        if is_result:
            results = [step for step in group if isinstance(step, Result)]
            rounds.append([(one, by_id.get(one.id, last) if isinstance(one.id, str) else last) for one in results])
        else:
            last = next((step for step in reversed(list(group)) if isinstance(step, Call)), last)
    return rounds


def _failures_of(rounds: Sequence[Sequence[tuple[Result, Call | None]]], rules: CompiledRules) -> int:
    """How many steps failed in a row, at the end."""
    count = 0
    for one in reversed(rounds):
        if not all(failed(result.body, rules, searched=call is not None and call.searches()) for result, call in one):
            break
        count += 1
    return count


def _without_head(text: str, rules: CompiledRules) -> str:
    """The result of a tool without the line that names the tool."""
    head = rules.results.match(text.lstrip())
    if head is None or head[0].startswith("<"):
        return text
    return text.lstrip()[head.end() :].lstrip()
