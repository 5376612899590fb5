"""The LiteLLM plug-ins without LiteLLM: what they choose, what they leave alone, and that they never raise."""

from __future__ import annotations

import asyncio
import copy
import importlib
import json
import pkgutil
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.litellm_proxy import GUIDE, ROOT
from test_batcher import Lengths

from routelearn.availability.availability import Availability
from routelearn.availability.breaker import BreakerLimits
from routelearn.cascade.backends import Answer
from routelearn.cascade.confidence import Ask, Estimate
from routelearn.cascade.verifier import load_verifier
from routelearn.monitoring.decision_log import DecisionLog
from routelearn.monitoring.escalation import EscalationMonitor
from routelearn.monitoring.routing import RouteMonitor
from routelearn.policies.conversation import Conversations
from routelearn.policies.threshold import Threshold
from routelearn.routers.decision import Model
from routelearn.routers.errors import InferenceError, InputError
from routelearn.routers.query import Query
from routelearn.service import litellm as litellm_package
from routelearn.service.defaults import LOCAL_ADDRESS, BatchLimits
from routelearn.service.gateway import Gateway
from routelearn.service.litellm import cascade as litellm_cascade
from routelearn.service.litellm.cascade import PostCallCascade
from routelearn.service.litellm.plugins import ClassifierPlugin, RoutingPlugin
from routelearn.service.litellm.request_hook import TRIGGERS, Hook
from routelearn.service.litellm.requests import policy_of, query_of
from routelearn.service.litellm.settings import Plugins
from routelearn.service.request_rules import RequestRules
from routelearn.service.wire_names import LiteLLMVariable

HARD, EASY = "x" * 90, "x"
NAMES = {"strong": "gpt-large", "weak": "gpt-small"}


class UpstreamError(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status_code = status


@pytest.fixture
def gateway() -> Gateway:
    """Of a pool of three, the two that the gateway has; a breaker opens at the second failure."""
    limits = BreakerLimits(failures=2, reset_timeout_s=3600)
    return Gateway(Lengths(), models=NAMES, availability=Availability(["strong", "weak"], limits))


def chat(text: Any, **more: Any) -> dict[str, Any]:
    return {"model": "auto", "messages": [{"role": "user", "content": text}], "metadata": {}, **more}


def hooked(hook: Hook, data: dict[str, Any], key: dict[str, Any] | None = None) -> dict[str, Any] | None:
    return asyncio.run(hook.async_pre_call_hook(SimpleNamespace(metadata=key), None, data, "acompletion"))


# ---- the hook


def test_a_request_to_a_trigger_goes_to_the_model_that_the_router_chose_with_the_other_behind_it(
    gateway: Gateway,
) -> None:
    hard, easy = hooked(Hook(gateway), chat(HARD)), hooked(Hook(gateway), chat(EASY))
    assert hard is not None and easy is not None
    assert (hard["model"], hard["fallbacks"]) == ("gpt-large", ["gpt-small"])
    assert (easy["model"], easy["fallbacks"]) == ("gpt-small", ["gpt-large"])
    assert hard["metadata"]["routelearn"]["decision"]["model"] == "strong"
    assert hard["messages"] == chat(HARD)["messages"]


def test_a_session_keeps_its_model_and_the_log_holds_what_was_asked(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "log.jsonl", keep_prompts=True)
    gateway = Gateway(Lengths(), models=NAMES, rules=RequestRules(sessions=Conversations(0.45)), log=log)
    hook, named = Hook(gateway), {"metadata": {"session_id": "s"}}
    first = hooked(hook, {**chat(HARD), **copy.deepcopy(named)})
    second = hooked(hook, {**chat(EASY * 20), **copy.deepcopy(named)})
    alone = hooked(hook, chat(EASY * 20))
    assert first is not None and second is not None and alone is not None
    assert (first["model"], second["model"], alone["model"]) == ("gpt-large", "gpt-large", "gpt-small")
    asyncio.run(hook.async_post_call_success_hook(second, SimpleNamespace(), SimpleNamespace(id="resp_1")))
    later = hooked(hook, {"model": "auto", "input": EASY * 20, "previous_response_id": "resp_1", "metadata": {}})
    assert later is not None and later["model"] == "gpt-large"
    other_key = SimpleNamespace(metadata=None, token="another key")
    data = {"model": "auto", "input": EASY * 20, "previous_response_id": "resp_1", "metadata": {}}
    asyncio.run(hook.async_pre_call_hook(other_key, None, data, "aresponses"))
    assert data["model"] == "gpt-small"
    gateway.close()
    log.close()
    logged = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(row["model"], row["cause"]) for row in logged] == [
        ("strong", "threshold"),
        ("strong", "kept"),
        ("weak", "threshold"),
        ("strong", "kept"),
        ("weak", "threshold"),
    ]


def test_a_request_that_needs_what_a_model_lacks_goes_to_the_other_one_alone() -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}}
    content = [{"type": "text", "text": EASY}, image]
    gateway = Gateway(
        Lengths(), models=NAMES, rules=RequestRules(pool=[Model("weak", vision=False, max_input_tokens=5000)])
    )
    seen = hooked(Hook(gateway), chat(content))
    assert seen is not None
    assert (seen["model"], seen.get("fallbacks")) == ("gpt-large", None)
    decision = seen["metadata"]["routelearn"]["decision"]
    assert decision["cause"] == "skipped"
    assert "skipped weak: it reads no images" in decision["reason"]
    long = hooked(Hook(gateway), chat("Hi. " * 5000))
    plain = hooked(Hook(gateway), chat(EASY))
    assert plain is not None and plain["model"] == "gpt-small" and plain["fallbacks"] == ["gpt-large"]
    assert long is not None and long["model"] == "gpt-large"
    gateway.close()


def test_a_request_that_nobody_can_serve_goes_to_strong_and_the_log_says_what_is_missing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pool = [Model("weak", audio=False), Model("strong", audio=False)]
    gateway = Gateway(Lengths(), models=NAMES, rules=RequestRules(pool=pool))
    heard = hooked(Hook(gateway), chat([{"type": "text", "text": EASY}, {"type": "input_audio", "input_audio": {}}]))
    assert heard is not None and heard["model"] == "gpt-large"
    assert "no model of the pool can serve this request: weak: it reads no audio; strong" in caplog.text
    gateway.close()


@pytest.mark.parametrize("model", ["gpt-small", "gpt-large", None])
def test_a_request_to_another_model_is_left_alone(gateway: Gateway, model: str | None) -> None:
    data = chat(HARD, model=model)
    before = copy.deepcopy(data)
    assert hooked(Hook(gateway), data) is None
    assert data == before


def test_fallbacks_that_the_client_names_are_kept(gateway: Gateway) -> None:
    data = hooked(Hook(gateway), chat(HARD, fallbacks=["of the client"]))
    assert data is not None and data["fallbacks"] == ["of the client"]


@pytest.mark.parametrize("data", [{}, {"messages": [{"content": 7}]}, {"messages": None}, {"input": 7}])
def test_a_request_without_a_usable_query_goes_to_strong(gateway: Gateway, data: dict[str, Any]) -> None:
    routed = hooked(Hook(gateway), {"model": "auto", **data})
    assert routed is not None and routed["model"] == "gpt-large"


def test_a_router_that_fails_sends_everything_to_strong() -> None:
    router = Lengths()
    router.failing = lambda _: InferenceError("broken")
    routed = hooked(Hook(Gateway(router)), chat(EASY))
    assert routed is not None and routed["model"] == "strong"
    assert routed["metadata"]["routelearn"]["decision"]["cause"] == "error"


def test_a_gateway_that_raises_sends_everything_to_strong(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway, "select", None)
    routed = hooked(Hook(gateway), chat(EASY))
    assert routed is not None and routed["model"] == "gpt-large"


def test_a_request_and_its_api_key_can_ask_for_a_threshold_and_the_key_goes_first(gateway: Gateway) -> None:
    always, never = {"routelearn_threshold": "0"}, {"routelearn_threshold": "2"}
    hook = Hook(gateway)
    for metadata, key, model in (
        (always, None, "gpt-large"),
        (never, None, "gpt-small"),
        (never, always, "gpt-large"),
        ({"routelearn_threshold": "no number"}, None, "gpt-small"),
    ):
        routed = hooked(hook, chat(EASY, metadata=dict(metadata)), key)
        assert routed is not None and routed["model"] == model


def test_the_tier_of_a_request_reaches_the_router() -> None:
    router = Lengths()
    hook = Hook(Gateway(router))
    hooked(hook, chat(EASY, metadata={"routelearn_tier": "gold"}))
    hooked(hook, chat(EASY, metadata={"routelearn_tier": "gold"}), {"routelearn_tier": "free"})
    assert [context.get("tier") for context in router.contexts] == ["gold", "free"]


@pytest.mark.parametrize(
    "data, expected",
    [
        ({"messages": [{"role": "user", "content": "a"}]}, [{"role": "user", "content": "a"}]),
        ({"prompt": "a"}, "a"),
        ({"input": "a"}, "a"),
        (
            {"messages": [{"role": "assistant", "tool_calls": []}, {"role": "user", "content": "a"}]},
            [{"role": "assistant", "tool_calls": []}, {"role": "user", "content": "a"}],
        ),
        (
            {"input": [{"type": "reasoning"}, {"role": "user", "content": [{"type": "input_text", "text": "a"}]}]},
            [{"type": "reasoning"}, {"role": "user", "content": [{"type": "input_text", "text": "a"}]}],
        ),
        ({"prompt": ["a"]}, "a"),
        ({"contents": [{"role": "user", "parts": [{"text": "a"}]}]}, [{"role": "user", "parts": [{"text": "a"}]}]),
    ],
)  # fmt: skip
def test_the_query_of_every_kind_of_request_is_found(data: dict[str, Any], expected: Query) -> None:
    assert query_of(data) == expected


@pytest.mark.parametrize("data", [{"prompt": [15496, 11]}, {"input": [[15496, 11]]}, {}, {"messages": []}])
def test_a_request_without_a_readable_query_gets_the_strong_model_and_fallbacks(data: dict[str, Any]) -> None:
    routed = hooked(Hook(Gateway(Lengths())), {"model": "auto", "metadata": {}, "fallbacks": None, **data})
    assert routed is not None
    assert (routed["model"], routed["fallbacks"]) == ("strong", ["weak", "other"])


def test_a_threshold_that_is_not_finite_is_passed_over() -> None:
    assert policy_of({"routelearn_threshold": "nan"}) is None
    assert policy_of({"routelearn_threshold": 0.25}) == Threshold(0.25)


# ---- outcomes and breakers


def attempt(group: str, request: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """What LiteLLM hands to its hooks about one call."""
    metadata = {**(request or {}).get("metadata", {}), "model_group": group, "deployment": f"openai/{group}"}
    return {"metadata": metadata, **more}


async def call(hook: Hook, request: dict[str, Any], error: Exception | None = None) -> None:
    await hook.async_pre_call_deployment_hook(request, None)
    if error is None:
        await hook.async_post_call_success_deployment_hook(request, None, None)
    else:
        await hook.async_post_call_failure_deployment_hook(request, error, None)


def test_failures_open_the_breaker_and_requests_go_to_the_other_model(gateway: Gateway) -> None:
    hook = Hook(gateway)

    async def run() -> None:
        for _ in range(2):
            await call(hook, attempt("gpt-large"), UpstreamError(503))

    asyncio.run(run())
    routed = hooked(hook, chat(HARD))
    assert routed is not None
    assert (routed["model"], routed["fallbacks"]) == ("gpt-small", ["gpt-large"])
    assert routed["metadata"]["routelearn"]["decision"]["model"] == "strong"
    assert "strong is out for" in routed["metadata"]["routelearn"]["reason"]


@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_a_request_that_is_at_fault_itself_opens_no_breaker(gateway: Gateway, status: int) -> None:
    hook = Hook(gateway)

    async def run() -> None:
        for _ in range(10):
            await call(hook, attempt("gpt-large"), UpstreamError(status))

    asyncio.run(run())
    assert gateway.availability is not None
    assert gateway.availability.status("strong").state == "closed"
    assert gateway.availability.status("strong").ignored == 10


def test_the_outcome_of_every_call_is_recorded_once(gateway: Gateway) -> None:
    hook = Hook(gateway)
    begun, ended = datetime(2026, 1, 1), datetime(2026, 1, 1) + timedelta(seconds=2)
    streamed = {"stream": True, "completion_start_time": begun, "exception": UpstreamError(500)}

    async def run() -> None:
        await call(hook, attempt("gpt-large"))
        await hook.async_log_success_event({"litellm_params": attempt("gpt-large")}, None, begun, ended)  # the same
        await hook.async_log_success_event({"stream": True, "litellm_params": attempt("gpt-large")}, None, begun, ended)
        await call(hook, attempt("gpt-small"), UpstreamError(500))
        failed = {"litellm_params": attempt("gpt-small"), "exception": UpstreamError(500)}
        await hook.async_log_failure_event(failed, None, begun, ended)  # the same
        await hook.async_log_failure_event({**streamed, "litellm_params": attempt("gpt-small")}, None, begun, ended)
        await call(hook, attempt("not-ours"))
        await call(hook, {})

    asyncio.run(run())
    assert gateway.availability is not None
    statuses = {status.model: (status.requests, status.failures) for status in gateway.availability.statuses()}
    assert statuses == {"strong": (2, 0), "weak": (2, 2)}
    p95 = gateway.availability.status("strong").p95_s
    assert p95 is not None and p95 == pytest.approx(2, abs=0.2)


def test_where_attempts_are_not_reported_one_by_one_the_failure_of_the_request_counts(gateway: Gateway) -> None:
    hook = Hook(gateway, attempts_reported=False)
    failed = {"litellm_params": attempt("gpt-small"), "exception": UpstreamError(500)}
    asyncio.run(hook.async_log_failure_event(failed, None, datetime.now(), datetime.now()))
    assert gateway.availability is not None and gateway.availability.status("weak").failures == 1


def test_a_late_success_does_not_pass_for_the_probe_but_the_probe_does() -> None:
    availability = Availability(["strong", "weak"], BreakerLimits(failures=1, reset_timeout_s=0.01))
    hook = Hook(Gateway(Lengths(), models=NAMES, availability=availability))
    early = hooked(hook, chat(HARD))
    assert early is not None
    asyncio.run(call(hook, attempt("gpt-large"), UpstreamError(500)))
    while not availability.is_available("strong"):
        pass
    probe = hooked(hook, chat(HARD))
    assert probe is not None and probe["model"] == "gpt-large"
    asyncio.run(call(hook, attempt("gpt-large", early)))
    assert availability.status("strong").state == "half-open"
    asyncio.run(call(hook, attempt("gpt-large", probe)))
    assert availability.status("strong").state == "closed"


def test_decisions_are_counted_and_logged(tmp_path: Any) -> None:
    router = Lengths()
    monitor, log = RouteMonitor(router), DecisionLog(tmp_path / "decisions.jsonl")
    hook = Hook(Gateway(router, monitor=monitor, log=log))
    hooked(hook, chat(HARD))
    hooked(hook, chat(EASY, model="something-else"))
    hooked(hook, chat(7))
    log.close()
    assert monitor.status().totals.requests == log.written == 2


# ---- the routing plug-in


@dataclass
class Context:
    """LiteLLM's, as its plug-ins see it."""

    structured_messages: list[dict[str, Any]]
    candidate_models: list[str]
    metadata: dict[str, Any] = field(default_factory=dict)
    signals: dict[str, Any] = field(default_factory=dict)


POOL = ["openai/gpt-large", "azure/gpt-small", "openai/gpt-small", "elsewhere/unknown"]


def context(text: str, candidates: Sequence[str] = POOL, **more: Any) -> Context:
    return Context([{"role": "user", "content": text}], list(candidates), **more)


def test_the_candidates_are_narrowed_to_the_deployments_of_the_chosen_model(gateway: Gateway) -> None:
    plugin = RoutingPlugin(gateway)
    hard, easy = asyncio.run(plugin.run(context(HARD))), asyncio.run(plugin.run(context(EASY)))
    assert hard.candidate_models == ["openai/gpt-large"]
    assert easy.candidate_models == ["azure/gpt-small", "openai/gpt-small"]
    assert easy.signals["routelearn"]["decision"]["model"] == "weak"


def test_candidates_go_by_the_pools_names_as_well(gateway: Gateway) -> None:
    narrowed = asyncio.run(RoutingPlugin(gateway).run(context(HARD, ["openai/strong", "openai/weak"])))
    assert narrowed.candidate_models == ["openai/strong"]


@pytest.mark.parametrize("candidates", [[], ["openai/gpt-small"], ["openai/gpt-small", "azure/gpt-small"], ["a", "b"]])
def test_a_group_that_is_no_choice_of_models_is_left_alone(gateway: Gateway, candidates: list[str]) -> None:
    narrowed = asyncio.run(RoutingPlugin(gateway).run(context(HARD, candidates)))
    assert (narrowed.candidate_models, narrowed.signals) == (candidates, {})


def test_a_retry_goes_to_the_next_candidate_without_deciding_again() -> None:
    router = Lengths()
    plugin = RoutingPlugin(Gateway(router, models=NAMES))
    asked = []
    metadata: dict[str, Any] = {}
    for _ in range(3):
        narrowed = asyncio.run(plugin.run(context(HARD, metadata=metadata)))
        metadata = {"routing_plugin_signals": narrowed.signals}
        asked.append(narrowed.candidate_models[0])
    assert asked == ["openai/gpt-large", "azure/gpt-small", "openai/gpt-large"]
    assert len(router.batches) == 1


def test_a_plugin_that_fails_leaves_the_choice_to_litellm(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway, "select", None)
    assert asyncio.run(RoutingPlugin(gateway).run(context(HARD))).candidate_models == POOL


def test_a_plugin_survives_the_copies_that_litellm_makes_of_its_configuration(gateway: Gateway) -> None:
    plugin = RoutingPlugin(gateway)
    assert copy.deepcopy({"plugins": [plugin]})["plugins"][0] is plugin


# ---- the classifier plug-in


def test_the_tier_follows_the_score(gateway: Gateway) -> None:
    plugin = ClassifierPlugin(gateway, {"SIMPLE": 0, "MEDIUM": 0.3, "COMPLEX": 0.7})
    texts = ["x" * 2, "x" * 30, "x" * 95]
    scores = gateway.router.score(texts).tolist()
    assert scores[0] < 0.3 <= scores[1] < 0.7 <= scores[2]
    assert [asyncio.run(plugin.classify(context(text))) for text in texts] == ["SIMPLE", "MEDIUM", "COMPLEX"]


def test_without_tiers_the_decision_is_the_tier(gateway: Gateway) -> None:
    plugin = ClassifierPlugin(gateway)
    assert [asyncio.run(plugin.classify(context(text))) for text in (EASY, HARD)] == ["SIMPLE", "COMPLEX"]
    asked = context(EASY, metadata={"routelearn_threshold": "0"})
    assert asyncio.run(plugin.classify(asked)) == "COMPLEX"


def test_a_classifier_that_fails_names_the_highest_tier(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway, "decide", None)
    assert asyncio.run(ClassifierPlugin(gateway).classify(context(EASY))) == "COMPLEX"
    tiers = ClassifierPlugin(gateway, {"low": 0, "high": 0.9})
    assert asyncio.run(tiers.classify(context(EASY))) == "high"


def test_tiers_must_cover_every_score(gateway: Gateway) -> None:
    with pytest.raises(InputError, match="expected one tier with the lowest score 0"):
        ClassifierPlugin(gateway, {"high": 0.5})


# ---- the cascade


class Judge:
    """As sure as it is told, or raises it."""

    def __init__(self, confidence: float | Exception) -> None:
        self.confidence = confidence
        self.seen: list[tuple[Query, str, float | None]] = []

    async def estimate(self, query: Query, answer: Answer, ask: Ask, prior: float | None = None) -> Estimate:
        self.seen.append((query, answer.text, prior))
        if isinstance(self.confidence, Exception):
            raise self.confidence
        return Estimate(self.confidence)


def reply(text: str | None, **message: Any) -> SimpleNamespace:
    return SimpleNamespace(choices=[SimpleNamespace(message=SimpleNamespace(content=text, **message))])


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """LiteLLM's router as the cascade calls it; what it was asked."""
    asked: list[dict[str, Any]] = []

    async def acompletion(**options: Any) -> SimpleNamespace:
        asked.append(options)
        return reply("strong's answer")

    module = SimpleNamespace(llm_router=SimpleNamespace(acompletion=acompletion))
    monkeypatch.setitem(sys.modules, "litellm.proxy.proxy_server", module)
    return asked


def answered(hook: Hook, data: dict[str, Any], response: Any) -> Any:
    routed = hooked(hook, data)
    assert routed is not None
    return asyncio.run(hook.async_post_call_success_hook(routed, None, response))


def test_an_answer_in_doubt_is_replaced_by_strongs(gateway: Gateway, proxy: list[dict[str, Any]]) -> None:
    judge, monitor = Judge(0.2), EscalationMonitor()
    hook = Hook(gateway, cascade=PostCallCascade(gateway, judge, 0.5, monitor=monitor))
    data = chat(EASY, temperature=0.3, metadata={"user_api_key": "k"}, litellm_call_id="1")
    data["proxy_server_request"] = {"body": {"model": "auto", "messages": [], "temperature": 0.3, "metadata": {}}}
    answer = answered(hook, data, reply("weak's answer"))
    assert answer.choices[0].message.content == "strong's answer"
    messages = [{"role": "user", "content": EASY}]
    assert proxy == [
        {"model": "gpt-large", "messages": messages, "temperature": 0.3, "metadata": {"user_api_key": "k"}}
    ]
    assert judge.seen[0][:2] == (messages, "weak's answer")
    assert judge.seen[0][2] == pytest.approx(gateway.router.score([EASY])[0], abs=1e-5)
    assert monitor.status("weak").rate == 1


@pytest.mark.parametrize(
    "data, response",
    [
        (chat(HARD), reply("strong's own")),
        (chat(EASY, stream=True), reply("a stream")),
        (chat(EASY), reply("calls", tool_calls=["a tool"])),
        (chat(EASY), SimpleNamespace(choices=[1, 2])),
        (chat(EASY), SimpleNamespace()),
    ],
)
def test_what_is_not_one_text_of_weaks_is_not_judged(
    gateway: Gateway, proxy: list[dict[str, Any]], data: dict[str, Any], response: Any
) -> None:
    judge = Judge(0.0)
    hook = Hook(gateway, cascade=PostCallCascade(gateway, judge, 0.5))
    assert answered(hook, copy.deepcopy(data), response) is None
    assert (judge.seen, proxy) == ([], [])


def test_an_answer_that_is_sure_stays(gateway: Gateway, proxy: list[dict[str, Any]]) -> None:
    hook = Hook(gateway, cascade=PostCallCascade(gateway, Judge(0.5), 0.5))
    assert answered(hook, chat(EASY), reply("fine")) is None
    assert proxy == []


def test_an_answer_that_cannot_be_judged_is_replaced(gateway: Gateway, proxy: list[dict[str, Any]]) -> None:
    hook = Hook(gateway, cascade=PostCallCascade(gateway, Judge(InferenceError("no")), 0.5))
    assert answered(hook, chat(EASY), reply("?")).choices[0].message.content == "strong's answer"


def test_weaks_answer_stays_when_strong_fails_or_its_breaker_is_open(
    gateway: Gateway, proxy: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = Hook(gateway, cascade=PostCallCascade(gateway, Judge(0.0), 0.5))
    monkeypatch.setattr(sys.modules["litellm.proxy.proxy_server"].llm_router, "acompletion", None)
    assert answered(hook, chat(EASY), reply("fine")) is None
    monkeypatch.undo()
    for _ in range(2):
        gateway.record("strong", ok=False, error=UpstreamError(500))
    assert answered(hook, chat(EASY), reply("fine")) is None
    assert proxy == []


def test_a_request_that_was_not_routed_is_not_judged(gateway: Gateway, proxy: list[dict[str, Any]]) -> None:
    hook = Hook(gateway, cascade=PostCallCascade(gateway, Judge(0.0), 0.5))
    assert asyncio.run(hook.async_post_call_success_hook(chat(EASY, model="gpt-small"), None, reply("fine"))) is None


# ---- names and settings


@pytest.mark.parametrize(
    "models, match",
    [({"strong": "a", "weak": "b", "none": "c"}, "not in the pool"), ({"strong": "a"}, "among them"),
     ({"strong": "a", "weak": "a"}, "a different name")],
)  # fmt: skip
def test_names_that_do_not_fit_are_refused(models: dict[str, str], match: str) -> None:
    with pytest.raises(InputError, match=match):
        Gateway(Lengths(), models=models)


PAIR = {"ROUTELEARN_STRONG": "strong", "ROUTELEARN_WEAK": "weak"}
RULES = {**PAIR, "ROUTELEARN_GENERAL": "off"}


@pytest.mark.parametrize(
    "variables, match",
    [
        ({}, "ROUTELEARN_ROUTER"),
        ({**RULES, "ROUTELEARN_TIMEOUT_MS": "soon"}, "ROUTELEARN_TIMEOUT_MS is 'soon'"),
        ({**RULES, "ROUTELEARN_TIMEOUT_MS": "0"}, "ROUTELEARN_TIMEOUT_MS is '0'.*above 0"),
        ({**RULES, "ROUTELEARN_THRESHOLD": "half"}, "ROUTELEARN_THRESHOLD is 'half': expected a number"),
        ({**RULES, "ROUTELEARN_METRICS_PORT": "http"}, "ROUTELEARN_METRICS_PORT is 'http': expected a whole number"),
        ({**RULES, "ROUTELEARN_BREAKERS": "maybe"}, "expected on or off"),
        ({**RULES, "ROUTELEARN_THRESHOLD": "0.5", "ROUTELEARN_STRONG_SHARE": "0.5"}, "both set"),
        ({**RULES, "ROUTELEARN_STRONG_SHARE": "0.5"}, "no threshold table"),
        ({**RULES, "ROUTELEARN_MODELS": "strong=a,nobody=b,weak=c"}, "not in the pool"),
    ],
)
def test_settings_that_cannot_be_used_are_named(variables: dict[str, str], match: str) -> None:
    with pytest.raises(InputError, match=match):
        _ = Plugins(variables).gateway


def test_a_misspelt_variable_is_told(caplog: pytest.LogCaptureFixture) -> None:
    Plugins({**RULES, "ROUTELEARN_TRESHOLD": "0.5"})
    assert "ROUTELEARN_TRESHOLD is no setting of routelearn; expected ROUTELEARN_THRESHOLD\n" in caplog.text


def test_the_plugins_of_the_environment_share_one_gateway() -> None:
    own = {"MODELS": "strong=gpt-large,weak", "TIERS": "low=0,high=0.3", "BREAKERS": "off"}
    plugins = Plugins({**RULES, **{f"ROUTELEARN_{name}": value for name, value in own.items()}})
    assert plugins.gateway is plugins.gateway
    assert plugins.gateway.name("strong") == "gpt-large"
    assert plugins.gateway.availability is None
    narrowed = asyncio.run(plugins.routing_plugin.run(context("Prove that 2 is prime.", ["gpt-large", "weak"])))
    assert narrowed.candidate_models == ["gpt-large"]
    assert asyncio.run(plugins.classifier_plugin.classify(context("Prove that 2 is prime."))) == "high"


def test_a_bundle_that_does_not_load_still_gives_a_gateway(tmp_path: Any) -> None:
    plugins = Plugins({**RULES, "ROUTELEARN_ROUTER": str(tmp_path / "missing")})
    selection = asyncio.run(plugins.gateway.select("Prove that the square root of 2 is irrational."))
    assert (selection.model, selection.decision.cause) == ("strong", "load-failed")


def test_without_a_bundle_the_general_router_decides_unless_it_is_off() -> None:
    def source(variables: dict[str, str]) -> str:
        query = "Prove that the square root of 2 is irrational."
        return asyncio.run(Plugins(variables).gateway.select(query)).decision.source

    assert [source(PAIR), source({**PAIR, "ROUTELEARN_ROUTER": "general"}), source(RULES)] == ["general"] * 2 + [
        "rules"
    ]


def test_nothing_of_litellm_is_imported_with_the_plugins() -> None:
    script = """
import sys
sys.modules["litellm"] = None
import routelearn.service.litellm as ours
from routelearn.routers.errors import MissingExtraError
try:
    ours.hook
except MissingExtraError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env={**RULES, "PATH": ""}
    )
    assert "pip install 'routelearn[litellm]'" in done.stdout


def test_the_objects_that_litellm_looks_up_stay_objects_when_every_submodule_is_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A submodule of the same name would take the place of the object."""
    base = SimpleNamespace(CustomLogger=type("CustomLogger", (), {}))
    monkeypatch.setitem(sys.modules, "litellm.integrations.custom_logger", base)
    for name, value in RULES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(litellm_package, "_plugins", None)
    for module in pkgutil.iter_modules(litellm_package.__path__):
        importlib.import_module(f"{litellm_package.__name__}.{module.name}")
    kinds = {"hook": Hook, "gateway": Gateway, "routing_plugin": RoutingPlugin, "classifier_plugin": ClassifierPlugin}
    for name, kind in kinds.items():
        assert isinstance(getattr(litellm_package, name), kind)
    with pytest.raises(AttributeError, match="no_such_object"):
        _ = litellm_package.no_such_object


def test_the_guide_tells_the_defaults_of_the_code() -> None:
    rows = dict(re.findall(r"^\| `(ROUTELEARN_\w+)` \| `?([^`|]*?)`? \|", GUIDE.read_text(), re.MULTILINE))
    assert float(rows["ROUTELEARN_TIMEOUT_MS"]) == 1000 * BatchLimits().timeout_s
    assert float(rows["ROUTELEARN_RESET_TIMEOUT_S"]) == BreakerLimits().reset_timeout_s
    assert rows["ROUTELEARN_TRIGGERS"] == ",".join(TRIGGERS)
    assert rows["ROUTELEARN_METRICS_HOST"] == LOCAL_ADDRESS


def test_the_guide_shows_the_example_files_and_every_variable() -> None:
    for name in ("config.yaml", "plugins.yaml", "gateway.py"):
        assert (ROOT / "examples" / "litellm" / name).read_text() in GUIDE.read_text()
    told = set(re.findall(r"`(ROUTELEARN_\w+)`", GUIDE.read_text()))
    assert told == {variable.value for variable in LiteLLMVariable}


def test_a_verifier_of_the_environment_makes_the_hook_a_cascade(
    verifier_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = SimpleNamespace(CustomLogger=type("CustomLogger", (), {}))
    monkeypatch.setitem(sys.modules, "litellm.integrations.custom_logger", base)
    monkeypatch.setattr(litellm_cascade, "version", lambda _: "1.81.7")
    judged = {**RULES, "ROUTELEARN_VERIFIER": str(verifier_bundle)}
    hook = Plugins({**judged, "ROUTELEARN_ESCALATE_BELOW": "0.25", "ROUTELEARN_METRICS_PORT": "0"}).hook
    assert isinstance(hook, base.CustomLogger)
    assert "async_pre_call_hook" in vars(type(hook))
    assert hook.cascade is not None
    assert hook.cascade.threshold == 0.25
    default = Plugins(judged).hook.cascade
    assert default is not None
    assert default.threshold == load_verifier(verifier_bundle).threshold
    monkeypatch.setattr(litellm_cascade, "version", lambda _: "1.81.6")
    with pytest.raises(InputError, match=r"needs 1\.81\.7"):
        _ = Plugins(judged).hook
