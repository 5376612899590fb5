"""The LiteLLM hook: every request has its fallbacks, and replies that are no answer count as failures."""

from __future__ import annotations

import asyncio
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from test_batcher import Lengths

from routelearn.availability.availability import Availability
from routelearn.availability.breaker import BreakerLimits
from routelearn.cascade.estimates import Estimate
from routelearn.routers.errors import InputError
from routelearn.routers.query import turns
from routelearn.service.gateway import Gateway
from routelearn.service.litellm.cascade import PostCallCascade
from routelearn.service.litellm.request_hook import Hook
from routelearn.service.litellm.requests import query_of

HARD, EASY = "x" * 90, "x"


@pytest.fixture
def gateway() -> Gateway:
    limits = BreakerLimits(failures=2, reset_timeout_s=3600)
    names = {"strong": "gpt-large", "weak": "gpt-small"}
    return Gateway(Lengths(), models=names, availability=Availability(["strong", "weak"], limits))


def routed(hook: Hook, **body: Any) -> dict[str, Any]:
    data = {"model": "auto", "metadata": {}, **body}
    return asyncio.run(hook.async_pre_call_hook(None, None, data, "text_completion")) or data


@pytest.mark.parametrize("field", ["prompt", "input"])
@pytest.mark.parametrize("text", [EASY, HARD])
def test_a_list_of_one_text_is_routed_as_the_text(gateway: Gateway, field: str, text: str) -> None:
    hook = Hook(gateway)
    alone, listed = routed(hook, **{field: text}), routed(hook, **{field: [text]})
    assert listed["model"] == alone["model"] == ("gpt-large" if text == HARD else "gpt-small")
    assert listed["fallbacks"] == alone["fallbacks"] != []


def test_texts_of_a_batch_and_the_contents_of_gemini_are_read() -> None:
    assert turns(query_of({"prompt": ["one", "two"]})) == ["one", "two"]
    assert turns(query_of({"contents": [{"role": "user", "parts": [{"text": "Why?"}]}]})) == ["Why?"]


UNREADABLE = {
    "token ids": {"prompt": [15496, 11, 995]},
    "several lists of token ids": {"prompt": [[15496], [11]]},
    "nothing": {},
    "null": {"messages": None},
    "a number": {"input": 7},
    "a message without a content that can be read": {"messages": [{"role": "user", "content": 7}]},
}


@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE)
def test_a_request_that_cannot_be_scored_survives_the_failure_of_its_model(
    gateway: Gateway, body: dict[str, Any]
) -> None:
    hook = Hook(gateway)
    assert (routed(hook, **body)["model"], routed(hook, **body)["fallbacks"]) == ("gpt-large", ["gpt-small"])
    for _ in range(2):
        gateway.record("strong", ok=False, error=ConnectionRefusedError())
    assert (routed(hook, **body)["model"], routed(hook, **body)["fallbacks"]) == ("gpt-small", ["gpt-large"])


@pytest.mark.parametrize(
    ("given", "expected"), [(None, ["gpt-large"]), ([], []), (["mine"], ["mine"])], ids=["null", "none", "own"]
)
def test_fallbacks_that_are_null_are_filled_in_and_those_of_the_client_stay(
    gateway: Gateway, given: Any, expected: list[str]
) -> None:
    assert routed(Hook(gateway), prompt=EASY, fallbacks=given)["fallbacks"] == expected


@pytest.mark.parametrize("model", [None, ["auto"], {"auto": 1}, 7])
def test_a_model_that_is_no_name_is_left_alone(gateway: Gateway, model: Any) -> None:
    assert routed(Hook(gateway), model=model, prompt=EASY)["model"] == model


@pytest.mark.parametrize(
    ("response", "failed"),
    [
        (SimpleNamespace(choices=[]), True),
        (SimpleNamespace(choices=None), True),
        ("<html>Bad gateway</html>", True),
        (SimpleNamespace(choices=[SimpleNamespace()]), False),
        (SimpleNamespace(data=[1.0]), False),  # an embedding
    ],
    ids=repr,
)
def test_a_reply_with_status_200_that_is_no_completion_is_a_failure(
    gateway: Gateway, response: Any, failed: bool
) -> None:
    hook = Hook(gateway)
    request = {"metadata": {"model_group": "gpt-large"}}
    for _ in range(2):
        asyncio.run(hook.async_post_call_success_deployment_hook(request, response, None))
    assert gateway.availability is not None
    assert gateway.availability.status("strong").state == ("open" if failed else "closed")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"policy": 0.5}, r"Threshold\(0.5\)"),
        ({"models": ["strong", "weak"]}, r"a mapping: \{'pool name'"),
        ({"availability": ["strong"]}, r"Availability\(models\)"),
        ({"router": "router/"}, r"routelearn.load\(path\)"),
    ],
)
def test_a_gateway_of_the_wrong_parts_says_what_to_write(options: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=rf"expected .*{told}"):
        Gateway(**{"router": Lengths(), **options})


# The cascade behind the hook


class Judge:
    def __init__(self, returns: Any) -> None:
        self.returns, self.seen = returns, 0

    async def estimate(self, query: Any, answer: Any, ask: Any, prior: Any) -> Any:
        self.seen += 1
        return self.returns


def reply(text: str | None, reason: str = "stop", **message: Any) -> SimpleNamespace:
    choice = SimpleNamespace(message=SimpleNamespace(content=text, **message), finish_reason=reason)
    return SimpleNamespace(choices=[choice])


def answered(
    gateway: Gateway, judge: Any, weak: Any, strong: Any, monkeypatch: pytest.MonkeyPatch
) -> tuple[Any, list[Any]]:
    asked: list[Any] = []

    async def acompletion(**options: Any) -> Any:
        asked.append(options["model"])
        return strong

    module = SimpleNamespace(llm_router=SimpleNamespace(acompletion=acompletion))
    monkeypatch.setitem(sys.modules, "litellm.proxy.proxy_server", module)
    hook = Hook(gateway, cascade=PostCallCascade(gateway, judge, 0.5))
    data = routed(hook, messages=[{"role": "user", "content": EASY}])
    return asyncio.run(hook.async_post_call_success_hook(data, None, weak)), asked


NO_ANSWERS = {
    "empty": reply(None),
    "white space": reply(" "),
    "filtered": reply(None, "content_filter"),
    "cut off": reply("It begins", "length"),
    "refused": reply(None, refusal="I cannot help with that."),
}


@pytest.mark.parametrize("weak", NO_ANSWERS.values(), ids=NO_ANSWERS)
def test_a_reply_of_weak_that_is_no_answer_is_replaced_unjudged(
    gateway: Gateway, weak: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = Judge(1.0)
    replacement, asked = answered(gateway, judge, weak, reply("strong's answer"), monkeypatch)
    assert replacement.choices[0].message.content == "strong's answer"
    assert (asked, judge.seen) == (["gpt-large"], 0)


@pytest.mark.parametrize(
    "strong", [*NO_ANSWERS.values(), SimpleNamespace(choices=[]), "<html>"], ids=[*NO_ANSWERS, "none", "html"]
)
def test_a_reply_of_strong_that_is_no_answer_leaves_weaks(
    gateway: Gateway, strong: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert answered(gateway, Judge(Estimate(0.0)), reply("weak's"), strong, monkeypatch) == (None, ["gpt-large"])


def test_calls_of_tools_of_strong_replace_weaks_answer(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    strong = reply(None, "tool_calls", tool_calls=["a tool"])
    assert answered(gateway, Judge(0.0), reply("weak's"), strong, monkeypatch)[0] is strong


def test_a_judge_may_return_a_number_and_must_take_four_arguments(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert answered(gateway, Judge(0.9), reply("weak's"), reply("strong's"), monkeypatch) == (None, [])

    class TwoArguments:
        async def estimate(self, query: Any, answer: Any) -> Estimate: ...

    with pytest.raises(InputError, match="expected estimate"):
        PostCallCascade(gateway, TwoArguments(), 0.5)  # type: ignore[arg-type]
