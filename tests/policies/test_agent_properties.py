"""Whatever a request holds, reading it as an agent's raises nothing and leaves a query."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from routelearn.policies import agent_turn_of, without_injected
from routelearn.policies.agent_lists import INJECTED, WRAPPERS
from routelearn.policies.agent_turns import AgentTurn

TAGS = [*INJECTED[:3], *WRAPPERS, "task"]
TEXTS = st.lists(
    st.sampled_from([*(f"<{tag}>" for tag in TAGS), *(f"</{tag}>" for tag in TAGS), "\n", " ", "words", "Error: x",
                     "[read_file for 'x'] Result:", "# AGENTS.md instructions for x\n<INSTRUCTIONS>", '{"error": 1}']),
    max_size=8,
).map("".join)  # fmt: skip
NAMES = st.sampled_from(
    ["role", "content", "parts", "type", "text", "tool_calls", "function", "name", "arguments", "input", "output", "id",
     "functionCall", "functionResponse", "response", "toolResult", "toolUse", "is_error", "status", "error", "from",
     "value", "tool_use_id", "call_id", "function_call", "metadata", "exit_code"]
)  # fmt: skip
WORDS = st.sampled_from(
    ["user", "assistant", "tool", "system", "text", "tool_result", "tool_use", "function_call", "function_call_output"]
)
SCALARS = st.none() | st.booleans() | st.integers(-1, 3) | st.floats(allow_nan=True) | WORDS | TEXTS
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=5), max_leaves=25
)
FIELDS = ("messages", "input", "contents", "prompt", "system", "instructions", "metadata", "max_tokens")
MESSAGES = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "tool"]), "content": VALUES})


@settings(max_examples=300)
@given(st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=4))
def test_any_request_has_a_turn(request: dict[str, Any]) -> None:
    turn = agent_turn_of(request)
    assert isinstance(turn, AgentTurn)
    assert turn.kind == "step" or turn.failures == turn.repeats == 0
    assert (turn.kind == "housekeeping") == bool(turn.why)


@settings(max_examples=300)
@given(st.lists(MESSAGES | VALUES, max_size=6))
def test_any_messages_have_a_turn(messages: list[Any]) -> None:
    turn = agent_turn_of({"messages": messages})
    assert 0 <= turn.failures <= len(messages)


@settings(max_examples=300)
@given(TEXTS | st.lists(MESSAGES | VALUES, max_size=6) | VALUES)
def test_a_query_is_left(query: Any) -> None:
    own = without_injected(query)
    assert own is query or (type(own) is type(query) and len(own) > 0)


@given(st.lists(st.fixed_dictionaries({"role": st.just("user"), "content": TEXTS}), min_size=1, max_size=4))
def test_words_outside_of_blocks_stay(messages: list[dict[str, str]]) -> None:
    messages.append({"role": "user", "content": "The words of the user."})
    assert without_injected(messages)[-1] == messages[-1]


def test_deep_nesting_is_read_to_its_end() -> None:
    deep: Any = "x"
    for _ in range(100_000):
        deep = [deep]
    arguments = "[" * 100_000 + "]" * 100_000
    call = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": arguments}}]}
    other = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
    messages = [call, {"role": "tool", "content": deep}, other, {"role": "tool", "content": arguments}]
    assert agent_turn_of({"messages": messages}) == AgentTurn("step", failures=0, repeats=1)
