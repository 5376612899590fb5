"""Load on a gateway: many OpenAI requests at once, while an upstream is killed and started again."""

from __future__ import annotations

import asyncio
import re
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import httpx
import openai
from helpers.litellm_proxy import KEY, Upstream


@dataclass(frozen=True)
class Reply:
    """The text of the answer that a client got, or the error, and the seconds that it took."""

    text: str | None
    error: str | None
    seconds: float


async def load(
    url: str, model: str, prompts: Sequence[str], concurrency: int, progress: Callable[[int], None] = lambda _: None
) -> list[Reply]:
    """Ask every prompt once, `concurrency` at a time; `progress` is called with the number of replies so far."""
    replies: list[Reply] = []
    waiting = iter(prompts)
    limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
    http = httpx.AsyncClient(limits=limits, trust_env=False)
    async with openai.AsyncOpenAI(base_url=url, api_key=KEY, max_retries=0, timeout=120, http_client=http) as client:

        async def ask() -> None:
            for prompt in waiting:
                started = time.perf_counter()
                text, error = None, None
                try:
                    reply = await client.chat.completions.create(
                        model=model, messages=[{"role": "user", "content": prompt}]
                    )
                    text = reply.choices[0].message.content
                except openai.OpenAIError as failure:
                    error = f"{type(failure).__name__}: {failure}"
                replies.append(Reply(text, error, time.perf_counter() - started))
                progress(len(replies))

        await asyncio.gather(*(ask() for _ in range(concurrency)))
    return replies


def outages(upstream: Upstream, total: int) -> Callable[[int], None]:
    """A `progress` for `load` that kills an upstream at 15 and 55 % of the replies, and restarts it at 35 and 75 %."""
    steps = [(0.15, upstream.kill), (0.35, upstream.restart), (0.55, upstream.kill), (0.75, upstream.restart)]

    def progress(done: int) -> None:
        if steps and done >= steps[0][0] * total:
            steps.pop(0)[1]()

    return progress


class Metrics:
    """The samples at a metrics port, as {"name{labels}": value}."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/metrics"

    def read(self) -> dict[str, float]:
        text = urllib.request.urlopen(self._url, timeout=30).read().decode()
        return {name: float(value) for name, value in re.findall(r"^(\w+(?:\{[^}]*\})?) (\S+)$", text, re.MULTILINE)}

    def total(self, name: str, **labels: str) -> float:
        """The sum over the samples that have these labels."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        return sum(
            value
            for sample, value in self.read().items()
            if sample.split("{")[0] == name and all(label in sample for label in wanted)
        )

    def answered(self, model: str) -> float:
        """How many calls a model answered."""
        asked = self.total("routelearn_model_requests_total", model=model)
        lost = self.total("routelearn_model_failures_total", model=model)
        return asked - lost - self.total("routelearn_model_ignored_total", model=model)
