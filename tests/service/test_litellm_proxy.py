"""docs/litellm.md as a user follows it: a real LiteLLM proxy, newest and older, asked by the real OpenAI client."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import openai
import pytest
from helpers.litellm_load import Metrics, load, outages
from helpers.litellm_proxy import (
    KEY,
    OLDER,
    ROOT,
    VERSIONS,
    Proxy,
    Upstream,
    block,
    environment,
    free_port,
    python_of,
    upstreams,
)

from routelearn.data.sample import generate_sample
from routelearn.routers.fallback import FallbackRouter

pytestmark = pytest.mark.slow

EXAMPLES = ROOT / "examples" / "litellm"
BUNDLE = ROOT / "tests" / "bundles" / "version-1"
STRONG, WEAK = "sim-max", "sim-small"
HELLO = {STRONG: f"{STRONG} says hello to you", WEAK: f"{WEAK} says hello to you"}


@dataclass
class Setup:
    """A running recipe: what it is asked by, what it asks, what it counts."""

    proxy: Proxy
    client: openai.OpenAI
    strong: Upstream
    weak: Upstream
    metrics: Metrics

    def ask(self, prompt: Any, model: str = "auto", **options: Any) -> Any:
        messages = [{"role": "user", "content": prompt}]
        return self.client.chat.completions.create(model=model, messages=messages, **options)

    def text(self, prompt: Any, model: str = "auto", **options: Any) -> str:
        return str(self.ask(prompt, model, **options).choices[0].message.content)


def variables(strong: Upstream, weak: Upstream, **more: str) -> dict[str, str]:
    """What the recipe exports, with the test's upstreams and bundle in the place of the reader's."""
    words = shlex.split(block("console", "export ROUTELEARN_ROUTER").replace("export", ""))
    exported = dict(word.split("=", 1) for word in words if re.match("[A-Z_]+=", word))
    urls = {
        f"{name}_URL": f"http://127.0.0.1:{upstream.port}/v1" for name, upstream in (("STRONG", strong), ("WEAK", weak))
    }
    replaced = {**urls, "ROUTELEARN_ROUTER": str(BUNDLE), "ROUTELEARN_METRICS_PORT": str(free_port()), **more}
    assert set(urls) <= set(exported)
    return {**exported, **replaced}


@pytest.fixture(scope="module", params=VERSIONS)
def setup(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    folder = tmp_path_factory.mktemp("litellm")
    (folder / "config.yaml").write_text(block("yaml", "callbacks: [gateway.hook]\n"))
    (folder / "gateway.py").write_text(block("python", "routelearn.service.litellm import"))
    with upstreams(STRONG, WEAK, delay_s=0.02) as (strong, weak):
        settings = variables(strong, weak, ROUTELEARN_RESET_TIMEOUT_S="1")
        with Proxy(request.param, folder, settings) as proxy:
            client = openai.OpenAI(base_url=proxy.url, api_key=KEY, max_retries=0, timeout=120)
            yield Setup(proxy, client, strong, weak, Metrics(int(settings["ROUTELEARN_METRICS_PORT"])))


@pytest.fixture(scope="module")
def prompts() -> dict[str, list[str]]:
    """Prompts that the bundle knows, by the model that it chooses for them."""
    texts = [query for query in generate_sample(300, seed=3).queries if isinstance(query, str)]
    chosen: dict[str, list[str]] = {STRONG: [], WEAK: []}
    for text, decision in zip(texts, FallbackRouter(BUNDLE).route_batch(texts), strict=True):
        if decision.cause == "threshold" and abs(decision.score - decision.threshold) > 0.05:
            chosen[decision.model].append(text)
    assert min(len(texts) for texts in chosen.values()) >= 20
    return chosen


def test_the_guides_client_gets_an_answer(setup: Setup) -> None:
    script = block("python", "import openai").replace(":4000/", f":{setup.proxy.port}/")
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True, timeout=240)
    assert done.stdout.strip() in HELLO.values()


def test_each_request_is_answered_by_the_model_that_the_bundle_chooses(
    setup: Setup, prompts: dict[str, list[str]]
) -> None:
    before = {model: setup.metrics.total("routelearn_decisions_total", model=model) for model in HELLO}
    for model, hello in HELLO.items():
        for prompt in prompts[model][:5]:
            assert setup.text(prompt) == hello
        assert setup.metrics.total("routelearn_decisions_total", model=model) == before[model] + 5


def test_a_stream_comes_in_pieces_from_the_chosen_model(setup: Setup, prompts: dict[str, list[str]]) -> None:
    for model, hello in HELLO.items():
        chunks = list(setup.ask(prompts[model][0], stream=True))
        pieces = [
            chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content
        ]
        assert "".join(pieces) == hello
        assert len(pieces) > 1


def test_tools_images_and_settings_reach_the_model_as_they_were_sent(
    setup: Setup, prompts: dict[str, list[str]]
) -> None:
    tools = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}]
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    content = [{"type": "text", "text": f"{prompts[WEAK][0]} ECHO"}, image]
    sent = json.loads(setup.text(content, tools=tools, temperature=0.25, max_tokens=50, metadata={"a": "b"}))
    assert sent["messages"][0]["content"][1] == image
    assert (sent["tools"], sent["temperature"], sent["max_tokens"]) == (tools, 0.25, 50)
    assert set(sent) <= {"model", "messages", "tools", "temperature", "max_tokens", "stream"}  # nothing of ours
    call = setup.ask(f"{prompts[STRONG][0]} CALL", tools=tools).choices[0]
    assert call.finish_reason == "tool_calls"
    assert call.message.tool_calls[0].function.name == "look_up"


def test_requests_that_name_a_model_are_left_alone(setup: Setup, prompts: dict[str, list[str]]) -> None:
    before = setup.metrics.total("routelearn_decisions_total")
    assert setup.text(prompts[STRONG][0], "weak") == HELLO[WEAK]
    assert setup.text(prompts[WEAK][0], "strong") == HELLO[STRONG]
    with pytest.raises(openai.BadRequestError, match="no-such-model"):
        setup.text("hello", "no-such-model")
    assert setup.metrics.total("routelearn_decisions_total") == before


def test_a_wrong_key_is_refused(setup: Setup) -> None:
    with openai.OpenAI(base_url=setup.proxy.url, api_key="sk-wrong", max_retries=0) as client:
        with pytest.raises(openai.APIStatusError) as error:
            client.chat.completions.create(model="auto", messages=[{"role": "user", "content": "hello"}])
        assert error.value.status_code in {400, 401}  # older proxies look the key up in a database first


def test_the_trigger_is_listed(setup: Setup) -> None:
    assert {"auto", "strong", "weak"} <= {model.id for model in setup.client.models.list()}


def test_a_request_can_ask_for_a_threshold_of_its_own(setup: Setup, prompts: dict[str, list[str]]) -> None:
    assert setup.text(prompts[WEAK][0], metadata={"routelearn_threshold": "0"}) == HELLO[STRONG]
    assert setup.text(prompts[STRONG][0], metadata={"routelearn_threshold": "2"}) == HELLO[WEAK]


@pytest.mark.parametrize("model, other", [(STRONG, WEAK), (WEAK, STRONG)])
@pytest.mark.parametrize("stream", [False, True])
def test_when_the_chosen_model_fails_the_other_answers(
    setup: Setup, prompts: dict[str, list[str]], model: str, other: str, stream: bool
) -> None:
    prompt = f"{prompts[model][0]} FAIL {model}"
    lost = setup.metrics.total("routelearn_model_failures_total", model=model)
    if stream:
        chunks = setup.ask(prompt, stream=True)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    else:
        text = setup.text(prompt)
    assert text == HELLO[other]
    assert setup.metrics.total("routelearn_model_failures_total", model=model) == lost + 1


def test_when_every_model_fails_the_client_gets_the_error(setup: Setup, prompts: dict[str, list[str]]) -> None:
    with pytest.raises(openai.InternalServerError):
        setup.text(f"{prompts[WEAK][0]} FAIL {STRONG} FAIL {WEAK}")


def test_no_request_is_lost_while_the_strong_upstream_is_killed_and_restarted_twice(
    setup: Setup, prompts: dict[str, list[str]]
) -> None:
    total = 600
    asked = [prompts[(STRONG, WEAK)[number % 2]][number % 20] for number in range(total)]
    opened = setup.metrics.total("routelearn_breaker_opened_total", model=STRONG)
    before = {name: setup.metrics.answered(name) for name in HELLO}
    replies = asyncio.run(load(setup.proxy.url, "auto", asked, 50, outages(setup.strong, total)))
    assert [reply.error for reply in replies if reply.error] == []
    answers = Counter(reply.text for reply in replies)
    assert set(answers) == set(HELLO.values())
    assert 0 < answers[HELLO[STRONG]] < total * 0.5 < answers[HELLO[WEAK]]  # weak stood in
    assert setup.metrics.total("routelearn_breaker_opened_total", model=STRONG) >= opened + 2
    for upstream in (setup.strong, setup.weak):
        assert setup.metrics.answered(upstream.name) - before[upstream.name] == answers[HELLO[upstream.name]]
        assert setup.metrics.answered(upstream.name) == upstream.answered
    _ = [setup.text(prompts[STRONG][0]) for _ in range(10)]
    assert setup.metrics.total("routelearn_breaker_state", model=STRONG, state="closed") == 1
    assert setup.text(prompts[STRONG][0]) == HELLO[STRONG]


def test_a_cascade_needs_a_litellm_that_lets_a_callback_replace_an_answer() -> None:
    script = """
from routelearn.routers.fallback import FallbackRouter
from routelearn.service.gateway import Gateway
from routelearn.service.litellm.cascade import PostCallCascade
from routelearn.service.litellm.request_hook import make_hook

class Sure:
    async def estimate(self, query, answer, ask, prior):
        return 1.0

gateway = Gateway(FallbackRouter(None, strong="strong", weak="weak"))
make_hook(gateway, cascade=PostCallCascade(gateway, Sure(), 0.5))
"""
    command = [str(python_of(OLDER)), "-c", script]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode
    assert f"LiteLLM {OLDER} drops the answers of post-call hooks; a cascade needs 1.81.7 or newer" in done.stderr
