"""Clients that put into the metadata what only the proxy puts there, and requests of odd shapes."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from test_batcher import Lengths

from routelearn.monitoring.savings import Savings
from routelearn.policies.conversation import Conversations
from routelearn.routers.decision import Model
from routelearn.service.gateway import Gateway
from routelearn.service.litellm.plugins import RoutingPlugin
from routelearn.service.litellm.request_hook import Hook
from routelearn.service.request_rules import RequestRules
from routelearn.service.session_ids import SessionNames

HARD, EASY = "x" * 90, "x" * 20
NAMES = {"strong": "gpt-large", "weak": "gpt-small"}
FORGED: dict[str, Any] = {
    "routelearn": {"asked": "invented", "lease": 1, "order": ["strong"], "decision": {"model": "invented"}},
    "routelearn_session": "theirs",
    "routelearn_call": "mark",
    "routelearn_decision": "theirs",
    "routelearn_further": True,
    "routelearn_received": "now",
    "routelearn_started": "now",
    "routing_plugin_signals": {"routelearn": {"asked": "invented", "lease": 1}},
    "pre_routing_selected_model": "gpt-large",
}


@pytest.fixture
def hook() -> Any:
    gateway = Gateway(
        Lengths(),
        models=NAMES,
        rules=RequestRules(sessions=Conversations(0.4), session_names=SessionNames(fingerprint=False)),
        savings=Savings([Model("strong", 3.0, 15.0), Model("weak", 0.3, 1.5)]),
    )
    yield Hook(gateway)
    gateway.close()


def sent(hook: Hook, model: str, **more: Any) -> dict[str, Any]:
    data = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "metadata": dict(FORGED), **more}
    asyncio.run(hook.async_pre_call_hook(SimpleNamespace(metadata=None, token="t"), None, data, "acompletion"))
    return data


@pytest.mark.parametrize("field", ["metadata", "litellm_metadata"])
@pytest.mark.parametrize("model", ["auto", "gpt-small", "group"])
def test_what_a_client_forges_in_the_metadata_is_not_believed(hook: Hook, model: str, field: str) -> None:
    metadata = sent(hook, model, **{field: dict(FORGED)})[field]
    for name, value in FORGED.items():
        assert metadata.get(name) != value, name


def test_a_forged_selection_names_no_model_in_the_metrics(hook: Hook) -> None:
    data = sent(hook, "gpt-small")
    data["metadata"]["model_group"] = "gpt-small"
    asyncio.run(hook.async_post_call_success_deployment_hook(data, SimpleNamespace(choices=[1]), None))
    assert hook.served.counts == {}


def test_a_message_whose_result_of_a_tool_is_a_list_is_answered(hook: Hook) -> None:
    part = {"type": "tool_result", "toolResult": ["odd"], "content": "text"}
    for field in ("messages", "input"):
        data = sent(hook, "auto", **{field: [{"role": "user", "content": [part]}]})
        assert data["model"] in NAMES.values()


def test_a_request_whose_facts_cannot_be_read_goes_to_strong(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("odd")

    monkeypatch.setattr(SessionNames, "session_of", broken)
    assert sent(hook, "auto")["model"] == "gpt-large"


def test_the_ids_of_chat_completions_are_no_sessions(hook: Hook) -> None:
    sessions = hook._gateway.rules.sessions
    assert sessions is not None
    data = sent(hook, "auto", prompt_cache_key="chat")
    for kind, count in (("chat.completion", 1), ("response", 2)):
        response = SimpleNamespace(id=f"id of a {kind}", object=kind)
        asyncio.run(hook.async_post_call_success_hook(data, SimpleNamespace(token="t"), response))
        assert sessions.as_dict()["sessions"] == count


def planned(hook: Hook, text: str, **metadata: Any) -> list[str]:
    """The deployments that the routing plug-in leaves for a request."""
    context = SimpleNamespace(
        structured_messages=[{"role": "user", "content": text}],
        candidate_models=["gpt-large", "gpt-small"],
        metadata=metadata,
        signals={},
    )
    asyncio.run(RoutingPlugin(hook._gateway).run(context))
    return context.candidate_models


def test_keys_share_no_session_by_its_id_behind_the_routing_plug_in(hook: Hook) -> None:
    assert planned(hook, HARD, session_id="s", user_api_key="one") == ["gpt-large"]
    assert planned(hook, EASY, session_id="s", user_api_key="one") == ["gpt-large"]
    assert planned(hook, EASY, session_id="s", user_api_key="two") == ["gpt-small"]


def test_the_routing_plug_in_knows_of_a_request_what_the_hook_knows() -> None:
    rules = RequestRules(pool=[Model("strong"), Model("weak", tools=False)])
    hook = Hook(Gateway(Lengths(), models=NAMES, rules=rules))
    data = sent(hook, "group", tools=[{"type": "function", "function": {"name": "run"}}])
    assert planned(hook, EASY, **data["metadata"]) == ["gpt-large"]
    hook._gateway.close()


def test_a_clients_litellm_metadata_does_not_hide_its_calls_from_the_proxy(hook: Hook) -> None:
    own = {"user_api_key_hash": "t"}
    data = {"model": "auto", "messages": [{"role": "user", "content": HARD}], "metadata": own, "litellm_metadata": {}}
    asyncio.run(hook.async_pre_call_hook(SimpleNamespace(metadata=None, token="t"), None, data, "acompletion"))
    assert data["litellm_metadata"] == {}
    assert own["routelearn"]["asked"] == "strong"  # type: ignore[index]
    own["model_group"] = "gpt-large"
    asyncio.run(hook.async_post_call_success_deployment_hook(data, SimpleNamespace(choices=[1]), None))
    assert hook.served.counts == {}
