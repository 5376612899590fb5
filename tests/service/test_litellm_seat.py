"""The classifier seat with the hook beside it: what they tell each other, and who answered in place of the chosen."""

from __future__ import annotations

import asyncio
import json
import logging
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from test_batcher import Lengths

from routelearn.availability.availability import Availability
from routelearn.availability.breaker import BreakerLimits
from routelearn.policies.conversation import Conversations
from routelearn.routers.decision import Model
from routelearn.service.gateway import Gateway
from routelearn.service.litellm.plugins import ClassifierPlugin
from routelearn.service.litellm.request_hook import Hook
from routelearn.service.litellm.served import ServedByOther
from routelearn.service.request_rules import RequestRules

HARD, EASY = "x" * 90, "x"
NAMES = {"strong": "gpt-large", "weak": "gpt-small"}
ROUTED = {"SIMPLE": "gpt-small", "COMPLEX": "gpt-large"}


class Seat:
    """LiteLLM's complexity router as far as it matters: a copy of the metadata for the classifier, then attempts."""

    def __init__(self, gateway: Gateway, **hook: Any) -> None:
        self.hook, self.plugin = Hook(gateway, triggers=["routelearn"], **hook), ClassifierPlugin(gateway)

    def ask(self, text: Any, key: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        """The metadata of a request to "auto" after its classification."""
        data = {"model": "auto", "messages": [{"role": "user", "content": text}], "metadata": {}, **more}
        api_key = SimpleNamespace(metadata=key, token="one")
        assert asyncio.run(self.hook.async_pre_call_hook(api_key, None, data, "acompletion")) is None
        metadata: dict[str, Any] = data["metadata"]
        metadata["user_api_key_metadata"] = key or {}
        shown = SimpleNamespace(structured_messages=data["messages"], metadata=dict(metadata))
        tier = asyncio.run(self.plugin.classify(shown))  # type: ignore[arg-type]
        decision = {"routed_model": ROUTED[tier], "tier": tier}
        metadata.update(model_group="auto", routing_decision=decision, pre_routing_selected_model=ROUTED[tier])
        metadata["deployment"] = "openai/another-name"
        return metadata

    def succeed(self, metadata: dict[str, Any]) -> None:
        response = SimpleNamespace(choices=[object()])
        asyncio.run(self.hook.async_post_call_success_deployment_hook({"metadata": metadata}, response, None))

    def fail(self, metadata: dict[str, Any]) -> None:
        error = ConnectionError("down")
        asyncio.run(self.hook.async_post_call_failure_deployment_hook({"metadata": metadata}, error, None))

    def fall_back(self, metadata: dict[str, Any], group: str) -> None:
        """The next attempt asks another group, as LiteLLM's fallbacks do."""
        del metadata["routing_decision"]
        metadata["model_group"] = group


def seat(**more: Any) -> Seat:
    availability = Availability(["strong", "weak"], BreakerLimits(failures=2, reset_timeout_s=3600))
    return Seat(Gateway(Lengths(), models=NAMES, availability=availability, rules=RequestRules(**more)))


def test_the_hook_leaves_the_model_to_the_classifier_and_gets_its_selection() -> None:
    metadata = seat().ask(HARD)
    assert metadata["routing_decision"]["tier"] == "COMPLEX"
    assert (metadata["routelearn"]["asked"], metadata["routelearn"]["decision"]["cause"]) == ("strong", "threshold")
    assert seat().ask(EASY)["routing_decision"]["tier"] == "SIMPLE"


def test_the_breakers_learn_from_the_seat_and_close_it_to_a_model_that_is_down() -> None:
    one = seat()
    for _ in range(2):
        one.fail(one.ask(HARD))
    metadata = one.ask(HARD)
    assert (metadata["routing_decision"]["tier"], metadata["routelearn"]["asked"]) == ("SIMPLE", "weak")
    assert metadata["routelearn"]["decision"]["model"] == "strong"


def test_a_probe_of_the_seat_closes_the_breaker() -> None:
    now = [0.0]
    limits = BreakerLimits(failures=2, reset_timeout_s=10)
    availability = Availability(["strong", "weak"], limits, clock=lambda: now[0])
    one = Seat(Gateway(Lengths(), models=NAMES, availability=availability))
    for _ in range(2):
        one.fail(one.ask(HARD))
    now[0] = 11.0
    probe = one.ask(HARD)
    assert probe["routelearn"]["lease"] is not None
    one.succeed(probe)
    assert availability.status("strong").state == "closed"


def test_the_needs_of_the_whole_request_count_and_not_only_its_messages() -> None:
    one = seat(pool=[Model("weak", tools=False)])
    tools = [{"type": "function", "function": {"name": "look_up"}}]
    metadata = one.ask(EASY, tools=tools)
    assert metadata["routing_decision"]["tier"] == "COMPLEX"
    assert metadata["routelearn"]["decision"]["cause"] == "skipped"
    assert one.ask(EASY)["routing_decision"]["tier"] == "SIMPLE"


def test_a_session_keeps_its_model() -> None:
    one = seat(sessions=Conversations(0.45))
    named = {"litellm_session_id": "s"}
    assert one.ask(HARD, **named)["routing_decision"]["tier"] == "COMPLEX"
    assert one.ask(EASY * 20, **named)["routelearn"]["decision"]["cause"] == "kept"
    assert one.ask(EASY * 20)["routing_decision"]["tier"] == "SIMPLE"


def test_the_threshold_of_an_api_key_goes_before_that_of_the_request() -> None:
    asked = {"metadata": {"routelearn_threshold": "2"}}
    assert seat().ask(HARD, **asked)["routing_decision"]["tier"] == "SIMPLE"
    asked = {"metadata": {"routelearn_threshold": "2"}}
    assert seat().ask(HARD, {"routelearn_threshold": "0"}, **asked)["routing_decision"]["tier"] == "COMPLEX"


def test_what_a_client_writes_into_the_place_of_the_hook_does_not_count() -> None:
    theirs = {"routelearn_session": "theirs", "routelearn": {"asked": "strong", "lease": 1, "more": "theirs"}}
    metadata = seat().ask(EASY, metadata=theirs)
    assert "routelearn_session" not in metadata
    assert (metadata["routelearn"]["asked"], metadata["routelearn"].get("more")) == ("weak", None)
    assert json.dumps(metadata["routelearn"])


def test_metadata_that_cannot_be_read_stops_no_request(caplog: pytest.LogCaptureFixture) -> None:
    one = seat(sessions=Conversations(0.45), session_names=SimpleNamespace(session_of=None))
    assert one.ask(EASY)["routing_decision"]["tier"] == "SIMPLE"
    assert "could not be read for the classifier" in caplog.text


# ---- who answered


def test_a_response_of_the_chosen_model_is_not_counted() -> None:
    one = seat()
    one.succeed(one.ask(HARD))
    assert one.hook.served.counts == {}


def test_a_response_of_a_fallback_is_counted_and_said(caplog: pytest.LogCaptureFixture) -> None:
    one = seat()
    metadata = one.ask(HARD)
    one.fail(metadata)
    one.fall_back(metadata, "gpt-small")
    one.succeed(metadata)
    assert one.hook.served.counts == {("strong", "weak"): 1}
    assert "strong was chosen, and weak answered" in caplog.text


def test_a_model_outside_of_the_pool_counts_as_other() -> None:
    one = seat()
    metadata = one.ask(HARD)
    one.fall_back(metadata, "a-third-model")
    one.succeed(metadata)
    assert one.hook.served.counts == {("strong", "other"): 1}


def test_a_model_that_litellm_kept_for_a_session_counts_as_chosen() -> None:
    one = seat()
    metadata: dict[str, Any] = {"routelearn": {}, "pre_routing_selected_model": "gpt-large", "model_group": "gpt-small"}
    one.succeed(metadata)
    assert one.hook.served.counts == {("strong", "weak"): 1}


def test_a_model_that_the_client_chose_is_not_counted() -> None:
    one = seat()
    one.succeed({"model_group": "gpt-small", "deployment": "openai/another-name"})
    assert one.hook.served.counts == {}


def test_a_fallback_of_the_hooks_own_choice_is_counted() -> None:
    one = seat()
    data: dict[str, Any] = {"model": "routelearn", "messages": [{"role": "user", "content": HARD}], "metadata": {}}
    asyncio.run(one.hook.async_pre_call_hook(SimpleNamespace(metadata=None), None, data, "acompletion"))
    one.succeed({**data["metadata"], "model_group": "gpt-small"})
    assert one.hook.served.counts == {("strong", "weak"): 1}


def test_the_later_responses_of_a_pair_are_debug_messages(caplog: pytest.LogCaptureFixture) -> None:
    served = ServedByOther()
    with caplog.at_level(logging.DEBUG):
        for name in ("weak", "weak", None):
            served.observe("strong", name)
    assert [record.levelname for record in caplog.records] == ["WARNING", "DEBUG", "WARNING"]


def test_the_counts_are_a_prometheus_metric() -> None:
    registry, served = CollectorRegistry(), ServedByOther()
    registry.register(served)
    name, pair = "routelearn_served_by_other_total", {"chosen": "strong", "served": "weak"}
    assert registry.get_sample_value(name, pair) is None
    served.observe("strong", "weak")
    assert registry.get_sample_value(name, pair) == 1
    with pytest.raises(ValueError, match="routelearn_served_by_other"):
        registry.register(ServedByOther())
