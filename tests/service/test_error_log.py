"""What the log says of errors: type and place, but no prompt and no key, also where an upstream quotes them."""

from __future__ import annotations

import asyncio
import logging
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from routelearn.routers.assessment import Assessment
from routelearn.routers.error_log import log_error
from routelearn.routers.rules import RulesRouter
from routelearn.service.gateway import Gateway
from routelearn.service.litellm.cascade import PostCallCascade
from routelearn.service.litellm.plugins import ClassifierPlugin, RoutingPlugin
from routelearn.service.litellm.request_hook import Hook

PROMPT, KEY = "my-secret-prompt", "sk-live-0123456789"
SECRETS = (PROMPT, KEY)


class UpstreamError(Exception):
    """Quotes what it was sent, as clients of providers do."""

    def __init__(self) -> None:
        super().__init__(f"invalid request: {PROMPT!r} with Authorization: Bearer {KEY}")


def fail(*arguments: object, **options: object) -> Any:
    try:
        raise UpstreamError
    except UpstreamError as error:
        raise RuntimeError(f"failed for {PROMPT}") from error


class Broken(RulesRouter):
    def assess(self, *arguments: Any, **options: Any) -> Assessment:
        return fail()


def request(content: Any = PROMPT, **more: Any) -> dict[str, Any]:
    return {"model": "auto", "messages": [{"role": "user", "content": content}], "metadata": {}, **more}


def assert_no_secret(caplog: pytest.LogCaptureFixture, *expected: str) -> None:
    formatted = "\n".join(logging.Formatter("%(message)s").format(record) for record in caplog.records)
    assert not [secret for secret in SECRETS if secret in formatted], formatted
    for word in expected:
        assert word in formatted


def test_an_error_is_logged_with_the_places_of_those_behind_it(caplog: pytest.LogCaptureFixture) -> None:
    try:
        fail()
    except RuntimeError as error:
        log_error(logging.getLogger("routelearn"), "it failed", error)
    assert_no_secret(caplog, "it failed: RuntimeError", "UpstreamError", __file__, "in fail")


def test_errors_that_stand_behind_each_other_end(caplog: pytest.LogCaptureFixture) -> None:
    first, second = ValueError(PROMPT), KeyError(PROMPT)
    first.__cause__, second.__cause__ = second, first
    log_error(logging.getLogger("routelearn"), "it failed", first)
    assert_no_secret(caplog, "ValueError", "KeyError")


@pytest.mark.parametrize(
    "data",
    [
        request(),
        request({"odd": PROMPT}),
        {"model": "auto", "messages": [{"role": [PROMPT, KEY], "content": "x"}]},
        {"model": "auto", "messages": PROMPT.encode()},
    ],
)
def test_the_hook_logs_no_prompt_of_a_request_that_cannot_be_routed(
    data: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    gateway = Gateway(Broken("large", "small"))
    hook = Hook(gateway)
    key = SimpleNamespace(metadata={"routelearn_threshold": KEY}, api_key=KEY)
    routed = asyncio.run(hook.async_pre_call_hook(key, None, data, "completion"))
    gateway.close()
    assert routed["model"] == "large"
    assert_no_secret(caplog, "strong model answers")
    assert PROMPT not in str({**routed, "messages": None})


def test_the_plugins_log_no_prompt(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    gateway = Gateway(RulesRouter("large", "small"))
    monkeypatch.setattr(gateway, "select", fail)
    monkeypatch.setattr(gateway, "decide", fail)
    context = SimpleNamespace(
        structured_messages=request()["messages"], candidate_models=["large", "small"], metadata={}, signals={}
    )
    asyncio.run(RoutingPlugin(gateway).run(context))
    assert asyncio.run(ClassifierPlugin(gateway).classify(context)) == "COMPLEX"
    assert_no_secret(caplog, "RuntimeError")


@pytest.mark.parametrize("of_confidence", [True, False])
def test_the_cascade_logs_no_key_of_an_upstream_that_fails(
    of_confidence: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def estimate(*arguments: Any) -> Any:
        return fail() if of_confidence else SimpleNamespace(confidence=0.0)

    async def acompletion(**options: Any) -> Any:
        fail()

    module = SimpleNamespace(llm_router=SimpleNamespace(acompletion=acompletion))
    monkeypatch.setitem(sys.modules, "litellm.proxy.proxy_server", module)
    gateway = Gateway(RulesRouter("large", "small"))
    cascade = PostCallCascade(gateway, SimpleNamespace(estimate=estimate), 0.5)  # type: ignore[arg-type]
    data = request(model="small")
    data["metadata"] = {"routelearn": {"decision": {"score": 0.2}}, "routelearn_received": 0.0}
    message = SimpleNamespace(content="an answer")
    response = SimpleNamespace(choices=[SimpleNamespace(message=message)])
    assert asyncio.run(cascade.review(data, response)) is None
    assert_no_secret(caplog, "the cascade failed", "UpstreamError")
    gateway.close()
