"""The results of tools are text in the form of every provider."""

from __future__ import annotations

from typing import Any

import pytest

from routelearn.routers.messages import TOOL
from routelearn.routers.query import messages_of, parse_query, turns

ASKED = "How many people live in Bergen?"
RESULT = "290,000"
QUESTION = {"role": "user", "content": ASKED}


def anthropic(part: dict[str, Any], role: str = "user") -> list[dict[str, Any]]:
    return [QUESTION, {"role": role, "content": [part]}]


@pytest.mark.parametrize(
    "chat",
    [
        pytest.param([QUESTION, {"role": "tool", "tool_call_id": "1", "content": RESULT}], id="openai"),
        pytest.param([QUESTION, {"role": "function", "name": "f", "content": RESULT}], id="openai legacy function"),
        pytest.param(anthropic({"type": "tool_result", "is_error": True, "content": RESULT}), id="anthropic error"),
        pytest.param(
            anthropic({"type": "tool_result", "content": [{"type": "text", "text": RESULT}, {"type": "image"}]}),
            id="anthropic blocks",
        ),
        pytest.param(
            [
                {"role": "user", "parts": [{"text": ASKED}]},
                {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"output": RESULT}}}]},
            ],
            id="gemini, role user",
        ),
        pytest.param(
            [QUESTION, {"role": "function", "parts": [{"function_response": {"name": "f", "response": RESULT}}]}],
            id="gemini, a text",
        ),
        pytest.param(
            [QUESTION, {"type": "function_call", "name": "f"}, {"type": "function_call_output", "output": RESULT}],
            id="responses",
        ),
        pytest.param(
            [QUESTION, {"type": "function_call_output", "output": [{"type": "input_text", "text": RESULT}]}],
            id="responses, parts",
        ),
        pytest.param([QUESTION, {"type": "custom_tool_call_output", "output": RESULT}], id="responses, custom tool"),
        pytest.param([QUESTION, {"type": "local_shell_call_output", "output": RESULT}], id="responses, local shell"),
        pytest.param(
            [QUESTION, {"type": "shell_call_output", "output": [{"stdout": RESULT, "outcome": {"exit_code": 0}}]}],
            id="responses, shell",
        ),
        pytest.param(
            [QUESTION, {"type": "shell_call_output", "output": [{"stdout": "", "stderr": RESULT}]}],
            id="responses, stderr of the shell",
        ),
        pytest.param(
            [QUESTION, {"role": "user", "content": [{"toolResult": {"content": [{"text": RESULT}]}}]}], id="bedrock"
        ),
        pytest.param(
            [QUESTION, {"role": "user", "content": [{"toolResult": {"content": [{"json": {"n": RESULT}}]}}]}],
            id="bedrock, JSON",
        ),
    ],
)
def test_a_result_is_a_turn_of_a_tool(chat: list[dict[str, Any]]) -> None:
    assert turns(parse_query(chat)) == [ASKED, RESULT]
    role, text = messages_of(chat)[-1]
    assert role in TOOL
    assert text == RESULT


@pytest.mark.parametrize(
    "part",
    [
        {"type": "mcp_tool_result", "content": [{"type": "text", "text": RESULT}]},
        {"type": "code_execution_tool_result", "content": {"type": "code_execution_result", "stdout": RESULT}},
        {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": RESULT}},
    ],
)
def test_what_tools_of_the_provider_found_is_text_of_the_assistant(part: dict[str, Any]) -> None:
    assert messages_of([QUESTION, {"role": "assistant", "content": [part]}])[-1] == ("assistant", RESULT)


def test_words_beside_results_stay_the_users() -> None:
    parts = [{"type": "tool_result", "content": RESULT}, {"type": "text", "text": "And in Oslo?"}]
    assert messages_of([QUESTION, {"role": "user", "content": parts}])[-1] == ("user", f"{RESULT}\nAnd in Oslo?")


@pytest.mark.parametrize(
    "item",
    [
        {"type": "item_reference", "id": "1"},
        {"type": "compaction", "encrypted_content": "x"},
        {"type": "mcp_approval_response", "approve": True},
        {"type": "apply_patch_call_output", "status": "completed"},
        {"type": "computer_call_output", "output": {"type": "computer_screenshot", "image_url": "data:,"}},
    ],
)
def test_an_item_without_words_does_not_stop_a_request_from_being_read(item: dict[str, Any]) -> None:
    assert turns(parse_query([QUESTION, item])) == [ASKED]
