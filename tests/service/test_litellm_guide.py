"""The recipe of docs/litellm.md from an empty folder, with the newest LiteLLM: the classifier seat, and its proxy."""

from __future__ import annotations

import asyncio
import json
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from helpers.litellm_load import Metrics, load, outages
from helpers.litellm_proxy import KEY, NEWEST, Proxy, Upstream, block, environment, free_port, python_of, upstreams
from test_litellm_proxy import BUNDLE, HELLO, STRONG, WEAK, Setup, prompts

__all__ = ["prompts"]

pytestmark = pytest.mark.slow

TOOL_CALL = {"id": "1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}


def words_of_the_recipe(start: str) -> list[str]:
    """The words of the one command of the recipe that begins like this."""
    (line,) = [line for line in block("console", "routelearn litellm-config").splitlines() if line.startswith(start)]
    return shlex.split(line)


def models(strong: Upstream, weak: Upstream) -> tuple[str, ...]:
    """Options that name the upstreams of the test in the place of a provider's models."""
    options = []
    for side, upstream in (("strong", strong), ("weak", weak)):
        options += [
            f"--{side}",
            f"openai/{upstream.name}",
            f"--{side}-base-url",
            f"http://127.0.0.1:{upstream.port}/v1",
        ]
    return tuple(options)


def routelearn(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A command of routelearn, in the environment that has the newest LiteLLM."""
    command = [str(python_of(NEWEST)), "-m", "routelearn", *words]
    return subprocess.run(
        command, cwd=folder, env=environment(**variables), capture_output=True, text=True, check=False, timeout=240
    )


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    """The recipe, with the test's bundle and upstreams in the place of the reader's, run by LiteLLM's own command."""
    folder = tmp_path_factory.mktemp("empty")
    with upstreams(STRONG, WEAK, delay_s=0.02) as (strong, weak):
        command = words_of_the_recipe("routelearn litellm-config")
        assert command[2:] == ["general", "--strong", "openai/gpt-4o", "--weak", "openai/gpt-4o-mini"]
        done = routelearn(folder, command[1], str(BUNDLE), *models(strong, weak))
        assert done.returncode == 0, done.stderr
        exported = dict(word.split("=", 1) for word in words_of_the_recipe("export")[1:])
        assert exported["LITELLM_MASTER_KEY"] == KEY
        (folder / "models.toml").write_text(f'[[models]]\nname = "{WEAK}"\njson_schema = false\n')
        more = {"ROUTELEARN_METRICS_PORT": str(free_port()), "ROUTELEARN_RESET_TIMEOUT_S": "1"}
        more["ROUTELEARN_POOL"] = str(folder / "models.toml")
        with Proxy(NEWEST, folder, {**exported, **more}) as proxy:
            client = openai.OpenAI(base_url=proxy.url, api_key=KEY, max_retries=0, timeout=120)
            yield Setup(proxy, client, strong, weak, Metrics(int(more["ROUTELEARN_METRICS_PORT"])))


def test_the_guides_client_gets_an_answer(setup: Setup) -> None:
    script = block("python", "import openai").replace(":4000/", f":{setup.proxy.port}/")
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True, timeout=240)
    assert done.stdout.strip() in HELLO.values()


@pytest.mark.parametrize("stream", [False, True])
def test_each_request_is_answered_by_the_model_that_the_bundle_chooses(
    setup: Setup, prompts: dict[str, list[str]], stream: bool
) -> None:
    for model, hello in HELLO.items():
        for prompt in prompts[model][:5]:
            if stream:
                pieces = [
                    chunk.choices[0].delta.content or "" for chunk in setup.ask(prompt, stream=True) if chunk.choices
                ]
                assert len(pieces) > 1
                assert "".join(pieces) == hello
            else:
                assert setup.text(prompt) == hello


def test_the_models_are_listed(setup: Setup) -> None:
    assert [model.id for model in setup.client.models.list()] == ["auto", "strong", "weak"]


def test_a_reply_says_who_answered(setup: Setup, prompts: dict[str, list[str]]) -> None:
    for model, tier in ((STRONG, "COMPLEX"), (WEAK, "SIMPLE")):
        asked: Any = [{"role": "user", "content": prompts[model][0]}]
        headers = setup.client.chat.completions.with_raw_response.create(model="auto", messages=asked).headers
        assert headers["x-litellm-model-name"] == f"openai/{model}"
        assert headers["x-litellm-complexity-router-tier"] == tier


def test_requests_that_name_a_model_are_left_alone(setup: Setup, prompts: dict[str, list[str]]) -> None:
    before = setup.metrics.total("routelearn_decisions_total")
    assert setup.text(prompts[STRONG][0], "weak") == HELLO[WEAK]
    assert setup.text(prompts[WEAK][0], "strong") == HELLO[STRONG]
    assert setup.metrics.total("routelearn_decisions_total") == before


def test_the_request_reaches_the_model_as_it_was_sent(setup: Setup, prompts: dict[str, list[str]]) -> None:
    sent = json.loads(setup.text(f"{prompts[WEAK][0]} ECHO", max_tokens=17, temperature=0.25))
    assert (sent["max_tokens"], sent["temperature"]) == (17, 0.25)
    assert set(sent) <= {"model", "messages", "temperature", "max_tokens", "stream"}


def test_a_request_can_ask_for_a_threshold_of_its_own(setup: Setup, prompts: dict[str, list[str]]) -> None:
    assert setup.text(prompts[WEAK][0], metadata={"routelearn_threshold": "0"}) == HELLO[STRONG]
    assert setup.text(prompts[STRONG][0], metadata={"routelearn_threshold": "2"}) == HELLO[WEAK]


def test_a_request_goes_to_a_model_that_can_serve_it_by_what_the_classifier_is_not_shown(
    setup: Setup, prompts: dict[str, list[str]]
) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object", "properties": {}}}}
    before = setup.metrics.total("routelearn_decisions_total", model=STRONG, cause="skipped")
    assert setup.text(prompts[WEAK][0], response_format=wanted) == HELLO[STRONG]
    assert setup.metrics.total("routelearn_decisions_total", model=STRONG, cause="skipped") == before + 1


@pytest.mark.parametrize("model, other", [(STRONG, WEAK), (WEAK, STRONG)])
def test_an_answer_of_the_other_model_is_counted_and_said(
    setup: Setup, prompts: dict[str, list[str]], model: str, other: str
) -> None:
    pair = {"chosen": model, "served": other}
    before = setup.metrics.total("routelearn_served_by_other_total", **pair)
    lost = setup.metrics.total("routelearn_model_failures_total", model=model)
    assert setup.text(f"{prompts[model][0]} FAIL {model}") == HELLO[other]
    assert setup.text(prompts[model][0]) == HELLO[model]
    assert setup.metrics.total("routelearn_served_by_other_total", **pair) == before + 1
    assert setup.metrics.total("routelearn_model_failures_total", model=model) == lost + 1
    assert f"{model} was chosen, and {other} answered" in setup.proxy.output


def test_tool_calls_keep_the_model_of_the_users_turn(setup: Setup, prompts: dict[str, list[str]]) -> None:
    (easy, hard), asked = (prompts[WEAK][0], prompts[STRONG][0]), {"role": "user"}
    turns: list[Any] = [{**asked, "content": easy}]
    loop = [
        *turns,
        {"role": "assistant", "content": None, "tool_calls": [TOOL_CALL]},
        {"role": "tool", "tool_call_id": "1", "content": " ".join(prompts[STRONG][:10])},
    ]

    def answer(messages: list[Any], session: str) -> str:
        headers = {"x-litellm-session-id": session}
        reply = setup.client.chat.completions.create(model="auto", messages=messages, extra_headers=headers)
        return str(reply.choices[0].message.content)

    assert answer(turns, "a") == HELLO[WEAK]
    assert answer(loop, "a") == HELLO[WEAK]
    assert answer(loop, "another") == HELLO[WEAK]  # nobody decided it before: the user's question does
    assert answer([*turns, {"role": "assistant", "content": "Hm."}, {**asked, "content": hard}], "a") in HELLO.values()


def test_a_user_can_escalate(setup: Setup, prompts: dict[str, list[str]]) -> None:
    decided = setup.metrics.total("routelearn_decisions_total", model=WEAK)
    assert setup.text(f"{prompts[WEAK][0]} LITELLM ESCALATE") == HELLO[STRONG]
    assert setup.metrics.total("routelearn_decisions_total", model=WEAK) == decided + 1


def test_no_request_is_lost_while_strong_is_killed_and_restarted_twice(
    setup: Setup, prompts: dict[str, list[str]]
) -> None:
    total = 400
    asked = [prompts[(STRONG, WEAK)[number % 2]][number % 20] for number in range(total)]
    opened = setup.metrics.total("routelearn_breaker_opened_total", model=STRONG)
    before = {name: setup.metrics.answered(name) for name in HELLO}
    replies = asyncio.run(load(setup.proxy.url, "auto", asked, 50, outages(setup.strong, total)))
    assert [reply.error for reply in replies if reply.error] == []
    answers = Counter(reply.text for reply in replies)
    assert set(answers) == set(HELLO.values())
    assert 0 < answers[HELLO[STRONG]] < total * 0.5 < answers[HELLO[WEAK]]  # weak stood in
    assert setup.metrics.total("routelearn_breaker_opened_total", model=STRONG) > opened
    for upstream in (setup.strong, setup.weak):
        assert setup.metrics.answered(upstream.name) - before[upstream.name] == answers[HELLO[upstream.name]]
    limit = time.monotonic() + 60
    while setup.text(prompts[STRONG][0]) != HELLO[STRONG]:
        assert time.monotonic() < limit
        time.sleep(0.2)
    assert setup.metrics.total("routelearn_breaker_state", model=STRONG, state="closed") == 1


def test_litellm_takes_the_configuration_of_every_affinity(tmp_path: Path) -> None:
    names = ("turn", "session", "cache", "none")
    for name in names:
        more = ("--strong", "openai/a", "--weak", "openai/b", "--affinity", name, "-o", f"{name}.yaml")
        assert routelearn(tmp_path, "litellm-config", str(BUNDLE), *more).returncode == 0
    script = f"""
import json, sys, yaml
from litellm.proxy.common_utils.cache_aware_routing import eligible_models
from litellm.router_strategy.complexity_router.config import ComplexityRouterConfig
class Plugin:
    async def classify(self, context):
        return None
found = {{}}
for name in {names!r}:
    settings = yaml.safe_load(open(f"{{name}}.yaml"))["model_list"][0]["litellm_params"]["complexity_router_config"]
    config = ComplexityRouterConfig.model_validate(settings | {{"classifier_plugin": Plugin()}})
    cached = eligible_models(config, {{"tier": "SIMPLE", "cause": "classifier_plugin"}})
    cached = cached if config.cache_aware_routing else ()
    found[name] = [config.classification_mode, config.session_affinity, list(cached), sorted(config.model_extra)]
print(json.dumps(found))
"""
    command = [str(python_of(NEWEST)), "-c", script]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True, timeout=240
    )
    both = [["SIMPLE", "weak"], ["COMPLEX", "strong"]]
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "turn": ["user_turn", False, [], []],
        "session": ["every_request", True, [], []],
        "cache": ["every_request", False, both, []],
        "none": ["every_request", False, [], []],
    }


# ---- routelearn proxy


def test_one_command_serves_any_openai_client_and_ends_cleanly(tmp_path: Path, prompts: dict[str, list[str]]) -> None:
    with upstreams(STRONG, WEAK) as (strong, weak):
        command = ("proxy", str(BUNDLE), *models(strong, weak))
        temporary = tmp_path / "tmp"
        temporary.mkdir()
        variables = {"OPENAI_API_KEY": "none", "LITELLM_MASTER_KEY": KEY, "TMPDIR": str(temporary)}
        with Proxy(NEWEST, tmp_path, variables, command) as proxy:
            client = openai.OpenAI(base_url=proxy.url, api_key=KEY, max_retries=0, timeout=120)
            assert [model.id for model in client.models.list()] == ["auto", "strong", "weak"]
            for model, hello in HELLO.items():
                asked: Any = [{"role": "user", "content": prompts[model][0]}]
                assert client.chat.completions.create(model="auto", messages=asked).choices[0].message.content == hello
            with pytest.raises(openai.APIStatusError) as refused:
                client.with_options(api_key="sk-wrong").models.list()
            assert refused.value.status_code in {400, 401}
            taken = routelearn(tmp_path, *command, "--port", str(proxy.port), **variables)
            assert (taken.returncode, taken.stdout) == (2, "")
            assert f"port {proxy.port} of 127.0.0.1 is in use" in taken.stderr
            proxy.process.send_signal(signal.SIGTERM)
            assert proxy.process.wait(60) == 0
        assert list(temporary.glob("routelearn-proxy-*")) == []


def test_without_a_master_key_only_this_machine_can_use_the_proxy(tmp_path: Path) -> None:
    with upstreams(STRONG, WEAK) as (strong, weak):
        command = ("proxy", "--config", "config.yaml")
        assert routelearn(tmp_path, "litellm-config", str(BUNDLE), *models(strong, weak)).returncode == 0
        refused = routelearn(tmp_path, *command, "--host", "0.0.0.0")
        assert refused.returncode == 2
        assert "other machines can reach 0.0.0.0: set LITELLM_MASTER_KEY" in refused.stderr
        with Proxy(NEWEST, tmp_path, {"OPENAI_API_KEY": "none"}, command) as proxy:
            client = openai.OpenAI(base_url=proxy.url, api_key="anything", max_retries=0, timeout=120)
            asked: Any = [{"role": "user", "content": "hello"}]
            assert client.chat.completions.create(model="auto", messages=asked).choices
            assert "LITELLM_MASTER_KEY is not set: every program of this machine can use the proxy" in proxy.output
            proxy.process.send_signal(signal.SIGINT)
            assert proxy.process.wait(60) == 0


def test_a_proxy_that_does_not_start_gives_its_own_exit_code(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("litellm_settings:\n  callbacks: [no_such_module.hook]\n")
    done = routelearn(tmp_path, "proxy", "--config", "config.yaml", "--port", str(free_port()))
    assert done.returncode == 3
    assert "no_such_module" in done.stdout + done.stderr
