"""Conversations through gateways: tool loops, replicas that take turns, and who answered each request."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
import openai
from helpers.litellm_proxy import KEY

from routelearn.data.sample import generate_sample

#: An image of one pixel.
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5Erk"
    "Jggg=="
)


@dataclass(frozen=True)
class Ask:
    """A request of a conversation.

    Attributes:
        messages: the conversation so far.
        turn: number of the user's turn that it belongs to.
        more: further fields of the body.
    """

    messages: list[dict[str, Any]]
    turn: int
    more: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """What a client got: the text, which is the name of the model that answered, or an error."""

    turn: int
    text: str | None
    error: str | None = None


async def ask_sessions(
    urls: Sequence[str],
    model: str,
    sessions: Mapping[str, Sequence[Ask]],
    concurrency: int,
    progress: Callable[[int], None] = lambda _: None,
) -> dict[str, list[Answer]]:
    """Ask the requests of each session in order, many sessions at a time; the replicas at `urls` take turns."""
    waiting, answers, done = iter(sessions.items()), {name: [] for name in sessions}, 0
    limits = httpx.Limits(max_connections=2 * concurrency, max_keepalive_connections=2 * concurrency)
    http = httpx.AsyncClient(limits=limits, trust_env=False)
    clients = [
        openai.AsyncOpenAI(base_url=url, api_key=KEY, max_retries=0, timeout=120, http_client=http) for url in urls
    ]

    async def ask() -> None:
        nonlocal done
        for name, requests in waiting:
            for number, request in enumerate(requests):
                try:
                    reply = await clients[number % len(clients)].chat.completions.create(
                        model=model,
                        messages=request.messages,  # type: ignore[arg-type]
                        extra_headers={"x-session-id": name},
                        **request.more,
                    )
                    answers[name].append(Answer(request.turn, reply.choices[0].message.content))
                except openai.OpenAIError as error:
                    answers[name].append(Answer(request.turn, None, f"{type(error).__name__}: {error}"))
                done += 1
                progress(done)

    await asyncio.gather(*(ask() for _ in range(concurrency)))
    await http.aclose()
    return answers


def tool_sessions(count: int, seed: int = 0, turns: int = 5, steps: int = 4) -> dict[str, list[Ask]]:
    """Conversations of several turns, each with a loop of tool calls, about sample prompts; each has a document."""
    draw = np.random.default_rng(seed)
    prompts = [query for query in generate_sample(800, seed=seed).queries if isinstance(query, str)]
    sessions = {}
    for number in range(count):
        name = f"session-{seed}-{number}"
        document = f"{name}. " + "Some words of a long document. " * int(draw.integers(20, 900))
        messages: list[dict[str, Any]] = [{"role": "system", "content": document}]
        requests = []
        for turn in range(int(draw.integers(1, turns + 1))):
            messages = [*messages, {"role": "user", "content": prompts[int(draw.integers(len(prompts)))]}]
            requests.append(Ask(messages, turn))
            for step in range(int(draw.integers(0, steps + 1))):
                call = {"name": "read_file", "arguments": json.dumps({"path": f"{turn}/{step}.txt"})}
                said = {"role": "assistant", "content": None}
                key = f"call_{turn}_{step}"
                messages = [
                    *messages,
                    {**said, "tool_calls": [{"id": key, "type": "function", "function": call}]},
                    {"role": "tool", "tool_call_id": key, "content": f"The file says {prompts[step]}"},
                ]
                requests.append(Ask(messages, turn))
            messages = [*messages, {"role": "assistant", "content": "Done."}]
        sessions[name] = requests
    return sessions


def mixed_requests(count: int, most_tokens: int, seed: int = 0) -> dict[str, list[Ask]]:
    """Single requests with images, tools, or texts that are longer than `most_tokens`, and plain ones in between."""
    draw = np.random.default_rng(seed)
    prompts = [query for query in generate_sample(400, seed=seed).queries if isinstance(query, str)]
    tool = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}
    found = {}
    for number in range(count):
        text, more = prompts[int(draw.integers(len(prompts)))], {}
        content: Any = text
        kind = ("plain", "image", "long", "tools")[int(draw.integers(4))]
        if kind == "image":
            content = [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": PIXEL}}]
        elif kind == "long":
            content = f"{text}\n" + "word " * int(most_tokens * draw.uniform(1.0, 3.0))
        elif kind == "tools":
            more = {"tools": [tool]}
        found[f"{kind}-{number}"] = [Ask([{"role": "user", "content": content}], 0, more)]
    return found


def changes_in_loops(answers: Mapping[str, Sequence[Answer]]) -> int:
    """How often a session changed its model within a turn."""
    return sum(
        one.turn == other.turn and one.text != other.text
        for turns in answers.values()
        for one, other in itertools.pairwise(turns)
    )


def errors(answers: Mapping[str, Sequence[Answer]]) -> list[str]:
    """All errors."""
    return [answer.error for turns in answers.values() for answer in turns if answer.error is not None]
