"""What calls through LiteLLM used: read from its events, joined with the decision, counted, and logged."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_batcher import Lengths
from test_litellm import EASY, HARD, NAMES, chat, hooked

from routelearn.availability.availability import Availability
from routelearn.monitoring.decision_log import DecisionLog
from routelearn.monitoring.log_rows import read_log
from routelearn.monitoring.savings import Savings
from routelearn.policies.composed import Explore
from routelearn.routers.decision import Model
from routelearn.service.gateway import Gateway
from routelearn.service.litellm.plugins import ClassifierPlugin, RoutingPlugin
from routelearn.service.litellm.request_hook import Hook
from routelearn.service.litellm.settings import Plugins
from routelearn.service.litellm.usage import _tokens, of_further_call

POOL = [Model("strong", 10.0, 30.0, cached_input_price=1.0), Model("weak", 1.0, 3.0)]
END = datetime(2026, 1, 1) + timedelta(seconds=2)


def usage(read: int = 1000, written: int = 100, **more: Any) -> SimpleNamespace:
    found = {"prompt_tokens": read, "completion_tokens": written, **more}
    return SimpleNamespace(usage=SimpleNamespace(model_dump=lambda: found))


def ended(hook: Hook, data: dict[str, Any], response: Any, model: str | None = None, **event: Any) -> None:
    """LiteLLM's event that a call has ended."""
    metadata = {**data["metadata"], "model_group": model or data["model"]}
    kwargs = {"litellm_params": {"metadata": metadata}, "model": "provider-model", **event}
    asyncio.run(hook.async_log_success_event(kwargs, response, END - timedelta(seconds=1), END))


@pytest.fixture
def log(tmp_path: Path) -> DecisionLog:
    return DecisionLog(tmp_path / "log.jsonl")


def gateway_of(log: DecisionLog | None = None, **more: Any) -> Gateway:
    return Gateway(Lengths(), models=NAMES, savings=Savings(POOL), log=log, **more)


def test_a_call_is_counted_and_logged_under_its_decision(log: DecisionLog, tmp_path: Path) -> None:
    gateway = gateway_of(log)
    hook = Hook(gateway)
    easy, hard = hooked(hook, chat(EASY)), hooked(hook, chat(HARD))
    assert easy is not None and hard is not None
    ended(hook, hard, usage(2000, 50, prompt_tokens_details={"cached_tokens": 1024}), response_cost=0.5, stream=True)
    ended(hook, easy, usage(), response_cost=0.0)
    gateway.close()
    log.close()
    assert gateway.ledger.savings is not None
    report = gateway.ledger.savings.report()
    assert report.spent_usd == pytest.approx(0.5013)
    assert report.always_strong_usd == pytest.approx(0.513)
    assert report.by_model["strong"].cached_tokens == 1024
    rows = list(read_log(tmp_path / "log.jsonl"))
    assert [(row["model"], row["usage"][0]["model"], row["usage"][0]["input_tokens"]) for row in rows] == [
        ("weak", "weak", 1000),
        ("strong", "strong", 2000),
    ]
    assert rows[0]["usage"][0]["session"] != rows[1]["usage"][0]["session"]


def test_a_fallback_is_counted_for_the_model_that_answered_and_says_who_was_chosen(
    log: DecisionLog, tmp_path: Path
) -> None:
    gateway = gateway_of(log)
    hook = Hook(gateway)
    hard = hooked(hook, chat(HARD))
    assert hard is not None
    ended(hook, hard, usage(), model="gpt-small")
    gateway.close()
    log.close()
    (row,) = read_log(tmp_path / "log.jsonl")
    assert (row["usage"][0]["model"], row["usage"][0]["chosen"]) == ("weak", "strong")


def test_further_calls_of_a_request_are_paid_and_not_compared(log: DecisionLog, tmp_path: Path) -> None:
    gateway = gateway_of(log)
    hook = Hook(gateway)
    easy = hooked(hook, chat(EASY))
    assert easy is not None
    ended(hook, easy, usage())
    ended(hook, {"model": "gpt-large", "metadata": of_further_call(easy["metadata"])}, usage())
    gateway.close()
    log.close()
    assert gateway.ledger.savings is not None
    report = gateway.ledger.savings.report()
    assert (report.requests, report.further) == (1, 1)
    assert report.spent_usd == pytest.approx(0.0143)
    (row,) = read_log(tmp_path / "log.jsonl")
    assert [(one["model"], one.get("further", False)) for one in row["usage"]] == [("weak", False), ("strong", True)]


@pytest.mark.parametrize(
    "metadata",
    [{}, {"routelearn_further": True}, {"routelearn_call": "guessed", "routelearn": {"asked": "weak", "lease": None}}],
)
def test_calls_of_other_requests_are_not_counted_whatever_a_client_writes(metadata: dict[str, Any]) -> None:
    gateway = gateway_of()
    ended(Hook(gateway), {"model": "gpt-small", "metadata": metadata}, usage())
    assert gateway.ledger.savings is not None
    assert gateway.ledger.savings.report().by_model == {}
    gateway.close()


def test_an_answer_of_litellms_own_cache_and_an_event_without_usage_are_no_calls(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gateway = gateway_of()
    hook = Hook(gateway)
    easy = hooked(hook, chat(EASY))
    assert easy is not None
    ended(hook, easy, usage(), cache_hit=True)
    ended(hook, easy, None)
    ended(hook, easy, SimpleNamespace(usage=object()))
    assert gateway.ledger.savings is not None
    assert gateway.ledger.savings.report().requests == 0
    assert not caplog.records
    gateway.close()


@pytest.mark.parametrize(
    ("found", "standard", "expected"),
    [
        ({"prompt_tokens": 9, "completion_tokens": 4}, {}, (9, 0, 4, 0)),
        ({"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": None}, {}, (9, 0, 4, 0)),
        (
            {"prompt_tokens": 90, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 64}},
            {},
            (90, 64, 4, 0),
        ),
        (
            {
                "prompt_tokens": 90,
                "completion_tokens": 4,
                "cache_read_input_tokens": 50,
                "cache_creation_input_tokens": 30,
            },
            {},
            (90, 50, 4, 30),
        ),
        (
            {"input_tokens": 10, "output_tokens": 4, "cache_read_input_tokens": 50, "cache_creation_input_tokens": 30},
            {},
            (90, 50, 4, 30),
        ),
        (
            {"input_tokens": 90, "output_tokens": 4, "input_tokens_details": {"cached_tokens": 64}},
            {},
            (90, 64, 4, 0),
        ),
        (None, {"prompt_tokens": 9, "completion_tokens": 4}, (9, 0, 4, 0)),
        ({"prompt_tokens": "no number", "completion_tokens": -1}, {}, None),
    ],
    ids=["openai", "no details", "openai cached", "litellm of anthropic", "anthropic", "responses", "standard", "bad"],
)
def test_tokens_are_read_in_every_providers_form(
    found: dict[str, Any] | None, standard: dict[str, Any], expected: tuple[int, int, int, int] | None
) -> None:
    tokens = _tokens({"standard_logging_object": standard}, {"usage": found})
    names = ("input_tokens", "cached_tokens", "output_tokens", "cache_write_tokens")
    assert tokens == (None if expected is None else dict(zip(names, expected, strict=True)))


def test_shadow_mode_decides_and_logs_and_leaves_the_request_as_it_is(log: DecisionLog, tmp_path: Path) -> None:
    breakers = Availability(["strong", "weak"])
    gateway = gateway_of(log, shadow=True, availability=breakers)
    hook = Hook(gateway)
    easy = hooked(hook, chat(EASY))
    assert easy is not None
    assert (easy["model"], easy.get("fallbacks")) == ("auto", None)
    ended(hook, easy, usage(), model="auto")
    attempt = {**easy, "metadata": {**easy["metadata"], "model_group": "auto", "deployment": "openai/gpt-large"}}
    asyncio.run(hook.async_post_call_success_deployment_hook(attempt, None, None))
    assert hook.served.counts == {}
    asyncio.run(hook.async_post_call_failure_deployment_hook(attempt, RuntimeError("down"), None))
    gateway.close()
    log.close()
    (row,) = read_log(tmp_path / "log.jsonl")
    assert (row["shadow"], row["served"], row["model"]) == (True, "strong", "weak")
    assert (row["usage"][0]["model"], row["usage"][0]["chosen"]) == ("strong", "weak")
    assert gateway.ledger.savings is not None
    report = gateway.ledger.savings.report()
    assert report.saved_usd == 0
    assert {one.model: one.failures for one in breakers.statuses()} == {"strong": 1, "weak": 0}


def test_in_shadow_mode_the_plugins_change_nothing() -> None:
    gateway = gateway_of(shadow=True)
    context = SimpleNamespace(
        structured_messages=[{"role": "user", "content": EASY}],
        candidate_models=["gpt-large", "gpt-small"],
        metadata={},
        signals={},
    )
    asyncio.run(RoutingPlugin(gateway).run(context))
    assert context.candidate_models == ["gpt-large", "gpt-small"]
    assert asyncio.run(ClassifierPlugin(gateway).classify(context)) == "COMPLEX"
    assert asyncio.run(ClassifierPlugin(gateway, {"LOW": 0, "HIGH": 0.9}).classify(context)) == "HIGH"
    gateway.close()


def test_the_variables_set_shadow_mode_and_the_cost_of_a_decision(tmp_path: Path) -> None:
    pool = tmp_path / "models.toml"
    pool.write_text('[[models]]\nname = "a"\ninput_price = 2.0\noutput_price = 4.0\n')
    plugins = Plugins(
        {
            "ROUTELEARN_STRONG": "a",
            "ROUTELEARN_WEAK": "b",
            "ROUTELEARN_GENERAL": "off",
            "ROUTELEARN_SHADOW": "on",
            "ROUTELEARN_ROUTER_USD": "0.001",
            "ROUTELEARN_POOL": str(pool),
            "ROUTELEARN_EXPLORE": "0.2",
        }
    )
    gateway = plugins.gateway
    assert gateway.shadow
    policy = gateway.batcher.policy
    assert isinstance(policy, Explore) and (policy.epsilon, policy.candidates) == (0.2, ("a", "b"))
    hook = Hook(gateway)
    data = hooked(hook, chat(EASY))
    assert data is not None
    ended(hook, data, usage(1_000_000, 0))
    assert gateway.ledger.savings is not None
    report = gateway.ledger.savings.report()
    assert (report.spent_usd, report.router_usd) == (2.0, 0.001)
    assert json.dumps(report.as_dict())
    gateway.close()


def test_a_call_behind_the_classifier_is_joined_with_the_classifiers_decision(log: DecisionLog, tmp_path: Path) -> None:
    gateway = gateway_of(log)
    hook, data = Hook(gateway), {**chat(EASY), "model": "smart"}
    assert hooked(hook, data) is None
    context = SimpleNamespace(structured_messages=data["messages"], metadata=dict(data["metadata"]))
    assert asyncio.run(ClassifierPlugin(gateway).classify(context)) == "SIMPLE"
    ended(hook, data, usage(), model="gpt-small")
    gateway.close()
    log.close()
    (row,) = read_log(tmp_path / "log.jsonl")
    assert (row["model"], row["usage"][0]["model"]) == ("weak", "weak")
    assert gateway.ledger.savings is not None
    assert gateway.ledger.savings.report().requests == 1
