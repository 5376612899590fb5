"""Routing plug-in, classifier plug-in and cascade in a real LiteLLM proxy: those that only a newer one has."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import openai
import pytest
from helpers.litellm_proxy import KEY, NEWEST, Proxy, Upstream, block, upstreams
from test_litellm_proxy import EXAMPLES, HELLO, STRONG, WEAK, prompts, variables

__all__ = ["prompts"]

pytestmark = pytest.mark.slow


@dataclass
class Setup:
    """A proxy with plugins.yaml and the gateway of own.py."""

    client: openai.OpenAI
    strong: Upstream
    weak: Upstream

    def ask(self, model: str, prompt: str, **options: Any) -> str:
        messages = [{"role": "user", "content": prompt}]
        reply: Any = self.client.chat.completions.create(model=model, messages=messages, **options)  # type: ignore[call-overload]
        if options.get("stream"):
            return "".join(chunk.choices[0].delta.content or "" for chunk in reply if chunk.choices)
        return str(reply.choices[0].message.content)

    @property
    def asked(self) -> tuple[int, int]:
        return self.strong.answered, self.weak.answered


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    folder = tmp_path_factory.mktemp("litellm")
    (folder / "config.yaml").write_text(block("yaml", "plugins: [gateway.routing_plugin]"))
    shutil.copy(EXAMPLES / "own.py", folder)
    (folder / "gateway.py").write_text("from own import classifier_plugin, hook, routing_plugin\n")
    with upstreams(STRONG, WEAK) as (strong, weak):
        settings = variables(strong, weak, PYTHONPATH=".")
        with Proxy(NEWEST, folder, settings) as proxy:
            yield Setup(openai.OpenAI(base_url=proxy.url, api_key=KEY, max_retries=0, timeout=120), strong, weak)


# "smart": a group with both models, which the routing plug-in narrows; "tiers": the complexity router with our
# classifier; "auto": the hook.
GROUPS = ["smart", "tiers", "auto"]


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("stream", [False, True])
def test_each_request_is_answered_by_the_model_that_the_bundle_chooses(
    setup: Setup, prompts: dict[str, list[str]], group: str, stream: bool
) -> None:
    for model, hello in HELLO.items():
        for prompt in prompts[model][:3]:
            assert setup.ask(group, prompt, stream=stream) == hello


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("model, other", [(STRONG, WEAK), (WEAK, STRONG)])
def test_when_the_chosen_model_fails_the_other_answers(
    setup: Setup, prompts: dict[str, list[str]], group: str, model: str, other: str
) -> None:
    assert setup.ask(group, f"{prompts[model][0]} FAIL {model}") == HELLO[other]


@pytest.mark.parametrize("group", GROUPS)
def test_a_request_can_ask_for_a_threshold_of_its_own(setup: Setup, prompts: dict[str, list[str]], group: str) -> None:
    assert setup.ask(group, prompts[WEAK][0], metadata={"routelearn_threshold": "0"}) == HELLO[STRONG]
    assert setup.ask(group, prompts[STRONG][0], metadata={"routelearn_threshold": "2"}) == HELLO[WEAK]


def test_requests_that_name_a_model_are_left_alone(setup: Setup, prompts: dict[str, list[str]]) -> None:
    assert setup.ask("weak", prompts[STRONG][0]) == HELLO[WEAK]
    assert setup.ask("weak", f"{prompts[WEAK][0]} DOUBT {WEAK}") == "I do not know"


def test_an_answer_of_weaks_that_is_in_doubt_is_replaced_by_strongs(
    setup: Setup, prompts: dict[str, list[str]]
) -> None:
    strong, weak = setup.asked
    assert setup.ask("auto", f"{prompts[WEAK][0]} DOUBT {WEAK}") == HELLO[STRONG]
    assert setup.asked == (strong + 1, weak + 1)
    assert setup.ask("auto", prompts[WEAK][0]) == HELLO[WEAK]
    assert setup.asked == (strong + 1, weak + 2)


def test_strongs_own_answer_is_not_judged_also_where_it_stood_in_for_weak(
    setup: Setup, prompts: dict[str, list[str]]
) -> None:
    strong, weak = setup.asked
    assert setup.ask("auto", f"{prompts[STRONG][0]} DOUBT {STRONG}") == "I do not know"
    assert setup.ask("auto", f"{prompts[WEAK][0]} FAIL {WEAK} DOUBT {STRONG}") == "I do not know"
    assert setup.asked == (strong + 2, weak)


def test_weaks_answer_stays_when_strong_fails(setup: Setup, prompts: dict[str, list[str]]) -> None:
    assert setup.ask("auto", f"{prompts[WEAK][0]} DOUBT {WEAK} FAIL {STRONG}") == "I do not know"


def test_a_stream_is_not_held_back_to_be_judged(setup: Setup, prompts: dict[str, list[str]]) -> None:
    assert setup.ask("auto", f"{prompts[WEAK][0]} DOUBT {WEAK}", stream=True) == "I do not know"
