"""The service reads chats in the form of every API, and reads the same as files and the library do."""

from __future__ import annotations

import json
from typing import Any

import pytest

from routelearn.routers.query import turns
from routelearn.service.http.schemas import SCORING_REQUEST

ASKED, REPLIED = "How many people live in Bergen?", "290,000"
USER = {"role": "user", "content": ASKED}
FORMS: list[list[dict[str, Any]]] = [
    [USER, {"role": "assistant", "tool_calls": [{"id": "1"}]}, {"role": "tool", "content": REPLIED}],
    [USER, {"role": "assistant", "content": None}, {"role": "tool", "content": [{"type": "text", "text": REPLIED}]}],
    [USER, {"role": "assistant", "content": [{"type": "tool_use", "name": "f", "input": {}}]},
     {"role": "user", "content": [{"type": "tool_result", "content": [{"type": "text", "text": REPLIED}]}]}],
    [USER, {"role": "user", "content": [{"type": "tool_result", "content": REPLIED}]}],
    [{"role": "user", "content": [{"type": "input_text", "text": ASKED}]}, {"type": "reasoning", "summary": []},
     {"type": "function_call", "name": "f"}, {"type": "function_call_output", "output": REPLIED}],
    [{"role": "user", "parts": [{"text": ASKED}]}, {"role": "model", "parts": [{"functionCall": {"name": "f"}}]},
     {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"result": REPLIED}}}]}],
    [{"from": "human", "value": ASKED}, {"from": "observation", "value": REPLIED}],
]  # fmt: skip


@pytest.mark.parametrize("chat", FORMS)
def test_a_request_reads_a_chat_of_any_form_as_the_library_does(chat: list[dict[str, Any]]) -> None:
    (query,) = SCORING_REQUEST.validate_json(json.dumps({"queries": [chat]}))["queries"]
    assert turns(query) == turns(chat) == [ASKED, REPLIED]


@pytest.mark.parametrize(
    "answer", [{"role": "assistant", "content": "THE ANSWER"}, {"from": "gpt", "value": "THE ANSWER"}]
)
def test_an_answer_at_the_end_of_a_request_is_not_read(answer: dict[str, str]) -> None:
    (query,) = SCORING_REQUEST.validate_json(json.dumps({"queries": [[USER, answer]]}))["queries"]
    assert turns(query) == [ASKED]
