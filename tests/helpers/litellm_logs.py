"""Writes the lines that LiteLLM logs, for tests/data/logs; its own environment runs this file.

    LITELLM_LOCAL_MODEL_COST_MAP=True .venv/litellm/VERSION/env/bin/python tests/helpers/litellm_logs.py \\
        tests/data/logs VERSION

No model is asked: the answers are `mock_response`. What is long and says nothing (maps of prices, traces, empty
metadata) is left out of the lines.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import litellm
from litellm.integrations.custom_logger import CustomLogger
from litellm.proxy import proxy_server
from litellm.proxy.spend_tracking.spend_tracking_utils import get_logging_payload

ASK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is 2 plus 2?"}]
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
TOOLS = [
    {"role": "user", "content": "Weather?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": "Rain"},
]
LONG = [{"role": "user", "content": "Summarise: " + "word " * 500}]
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
ROUTED = [{"role": "user", "content": [{"type": "text", "text": "Through the router"}, IMAGE]}]
_RESPONSE = ("id", "created_at", "model", "object", "output", "usage", "error")


class Lines(CustomLogger):
    """Keeps what a callback gets, and what the spend log would."""

    def __init__(self) -> None:
        super().__init__()
        self.logged: list[dict[str, Any]] = []
        self.spent: list[dict[str, Any]] = []

    async def async_log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        self.logged.append(_plain(kwargs["standard_logging_object"]))
        row = get_logging_payload(kwargs=kwargs, response_obj=response_obj, start_time=start_time, end_time=end_time)
        self.spent.append(_plain(row))

    async def async_log_failure_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        self.logged.append(_plain(kwargs["standard_logging_object"]))


def _plain(line: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(line, default=str))
    return found


def _short(line: dict[str, Any]) -> dict[str, Any]:
    for name in ("model_map_information", "cost_breakdown", "hidden_params"):
        line.pop(name, None)
    if line.get("error_information"):
        line["error_information"]["traceback"] = ""
    of_spend = isinstance(line["metadata"], str)
    metadata = json.loads(line["metadata"]) if of_spend else line["metadata"]
    dull = ("model_map_information", "cost_breakdown")
    metadata = {name: value for name, value in metadata.items() if value and name not in dull}
    response = json.loads(line["response"] or "{}") if of_spend else line["response"]
    if response.get("output"):
        response = {name: response[name] for name in _RESPONSE}
    as_text = json.dumps if of_spend else lambda value: value
    return {**line, "metadata": as_text(metadata), "response": as_text(response)}


def _of_proxy(model: str, messages: Any, **more: Any) -> dict[str, Any]:
    """What a proxy hands to the SDK of the request that it got."""
    return {
        "url": "/v1/chat/completions",
        "method": "POST",
        "headers": {},
        "body": {"model": model, "messages": messages, **more},
    }


async def _ask(lines: Lines) -> None:
    ask = litellm.acompletion
    feedback = {"feedback": {"score": 1}}
    await ask(
        model="openai/gpt-4o-mini",
        messages=ASK,
        mock_response="It is 4.",
        metadata={"requester_metadata": feedback, "session_id": "s1", "tags": ["math"]},
        proxy_server_request=_of_proxy("small", ASK, metadata=feedback),
    )
    stream = await ask(
        model="openai/gpt-4o",
        messages=[{"role": "user", "content": "Stream it"}],
        mock_response="streamed words here",
        stream=True,
    )
    async for _ in stream:
        pass
    with contextlib.suppress(litellm.RateLimitError):
        await ask(
            model="openai/gpt-4o",
            messages=[{"role": "user", "content": "Fail it"}],
            mock_response="litellm.RateLimitError",  # type: ignore[arg-type]
        )
    await ask(
        model="openai/gpt-4o",
        messages=TOOLS,
        mock_response="It rains.",
        proxy_server_request=_of_proxy("large", TOOLS, metadata={"feedback": "thumbs_down"}),
    )
    await ask(
        model="openai/gpt-4o", messages=LONG, mock_response="Long.", proxy_server_request=_of_proxy("large", LONG)
    )
    await litellm.aembedding(model="openai/text-embedding-3-small", input=["embed me"], mock_response=[0.1, 0.2])
    await litellm.aresponses(
        model="openai/gpt-4o", input="Say it with responses", instructions="Be kind.", mock_response="Said."
    )
    of_group = {"model": "openai/gpt-4o-mini", "mock_response": "From the group."}
    router = litellm.Router(model_list=[{"model_name": "small", "litellm_params": of_group}])
    await router.acompletion(model="small", messages=ROUTED)
    await asyncio.sleep(3)  # the callbacks run in the background
    litellm.turn_off_message_logging = True
    await ask(model="openai/gpt-4o", messages=[{"role": "user", "content": "Secret"}], mock_response="Hidden.")
    await asyncio.sleep(3)
    assert len(lines.logged) == len(lines.spent) + 1


def main(folder: Path, version: str) -> None:
    proxy_server.general_settings["store_prompts_in_spend_logs"] = True
    lines = Lines()
    litellm.callbacks = [lines]
    asyncio.run(_ask(lines))
    for name, found in ((f"litellm-{version}.jsonl", lines.logged), (f"litellm-spend-{version}.jsonl", lines.spent)):
        text = "".join(json.dumps(_short(line)) + "\n" for line in found)
        (folder / name).write_text(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
