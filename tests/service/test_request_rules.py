"""Agents, sessions and needs of requests, as a gateway and the HTTP service decide by them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from routelearn.policies.conversation import Conversations
from routelearn.policies.switch_price import SwitchPrices
from routelearn.routers.base import Router
from routelearn.routers.decision import Decision, Floats, Model
from routelearn.routers.query import Query, transcript
from routelearn.service.gateway import Gateway
from routelearn.service.http.app import create_app
from routelearn.service.http.slot import RouterSlot
from routelearn.service.request_rules import RequestRules

POOL = [Model("strong", 3.0, 15.0, cached_input_price=0.3), Model("weak", 0.3, 1.5, cached_input_price=0.03)]
HARD, EASY = "Prove it.", "Say hello."


class Words(Router):
    """Strong for a query that says "Prove" in its user's words, or "Traceback" anywhere."""

    def __init__(self) -> None:
        super().__init__(POOL, "strong", "weak", threshold=0.6)
        self.read: list[Query] = []

    def quality(self, queries: Sequence[Query]) -> Floats:
        self.read += queries
        hard = ["Prove" in transcript(query) or "Traceback" in transcript(query) for query in queries]
        return np.array([[0.9, 0.1] if one else [0.3, 0.7] for one in hard], np.float32)


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def step(number: int, arguments: str = "{}", result: str = "ok") -> list[dict[str, Any]]:
    call = {"id": f"c{number}", "type": "function", "function": {"name": "run", "arguments": arguments}}
    return [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": f"c{number}", "content": result},
    ]


def loop(text: str, *steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [user(text), *(message for one in steps for message in one)]


def asked(gateway: Gateway, messages: list[dict[str, Any]], **body: Any) -> Decision:
    facts = gateway.facts_of({"messages": messages, **body})
    return asyncio.run(gateway.select(messages, facts=facts)).decision


@pytest.fixture
def router() -> Words:
    return Words()


def test_steps_are_decided_by_the_users_question_and_not_by_what_a_tool_said(router: Words) -> None:
    gateway = Gateway(router)
    assert asked(gateway, loop(EASY, step(1, result="Traceback (most recent call last)"))).model == "weak"
    assert router.read[-1] == [user(EASY)]
    gateway.close()


def test_blocks_that_agents_add_are_not_routed(router: Words) -> None:
    gateway = Gateway(router)
    text = f"<system-reminder>Prove everything.</system-reminder>\n{EASY}"
    assert asked(gateway, [user(text)]).model == "weak"
    plain = Gateway(router, rules=RequestRules(reads_agents=False))
    assert asked(plain, [user(text)]).model == "strong"
    gateway.close()
    plain.close()


def test_a_session_keeps_its_model_through_the_steps_of_a_turn(router: Words) -> None:
    gateway = Gateway(router, rules=RequestRules(sessions=Conversations(0.0)))
    first = asked(gateway, [user(HARD)], session_id="s")
    steps = [asked(gateway, loop(EASY, *map(step, range(n))), session_id="s") for n in range(1, 3)]
    assert (first.model, {one.model for one in steps}) == ("strong", {"strong"})
    assert asked(gateway, [user(EASY)], session_id="s").model == "weak"
    gateway.close()


def test_a_loop_of_equal_calls_moves_its_session_to_strong_for_good(router: Words) -> None:
    rules = RequestRules(sessions=Conversations(0.0))
    gateway = Gateway(router, rules=rules)
    assert asked(gateway, loop(EASY, *[step(n) for n in range(2)]), session_id="s").model == "weak"
    moved = asked(gateway, loop(EASY, *[step(n) for n in range(3)]), session_id="s")
    assert (moved.model, moved.cause) == ("strong", "escalated")
    assert "3" in moved.reason
    later = asked(gateway, [user(EASY)], session_id="s")
    assert (later.model, later.cause) == ("strong", "escalated")
    assert asked(gateway, [user(EASY)], session_id="another").model == "weak"
    assert rules.sessions is not None and rules.sessions.as_dict()["escalated"] == 1
    gateway.close()


def test_a_loop_without_a_session_goes_to_strong_while_it_lasts(router: Words) -> None:
    gateway = Gateway(router)
    failing = [step(n, arguments=f'{{"try": {n}}}', result="Error: no such file") for n in range(3)]
    assert asked(gateway, loop(EASY, *failing)).cause == "escalated"
    assert asked(gateway, [*loop(EASY, *failing), user(EASY)]).model == "weak"
    gateway.close()


def test_housekeeping_goes_to_weak_and_leaves_the_session_alone(router: Words) -> None:
    sessions = Conversations(prices=SwitchPrices(models=POOL))
    gateway = Gateway(router, rules=RequestRules(sessions=sessions))
    marked = {"metadata": {"routelearn_housekeeping": True, "session_id": "s"}}
    assert asked(gateway, [user(HARD)], metadata={"session_id": "s"}).model == "strong"
    title = asked(gateway, [user(HARD)], **marked)
    assert (title.model, title.cause) == ("weak", "housekeeping")
    assert asked(gateway, [user(HARD)], metadata={"session_id": "s"}).cause == "threshold"
    assert sessions.as_dict()["begun"] == 1
    gateway.close()


def test_housekeeping_with_an_image_goes_to_the_model_that_can_read_it(router: Words) -> None:
    gateway = Gateway(router, rules=RequestRules(pool=[Model("weak", vision=False)]))
    content = [{"type": "text", "text": "Title?"}, {"type": "image_url", "image_url": {"url": "https://e.org/a.png"}}]
    found = asked(gateway, [{"role": "user", "content": content}], metadata={"routelearn_housekeeping": True})
    assert (found.model, found.cause) == ("strong", "skipped")
    gateway.close()


def test_the_http_service_decides_steps_and_loops_alike(router: Words) -> None:
    rules = RequestRules(sessions=Conversations(0.0))
    with TestClient(create_app(RouterSlot("words", lambda: router), rules=rules)) as client:

        def routed(messages: list[dict[str, Any]], kind: str = "route") -> Any:
            reply = client.post(f"/v1/{kind}", json={"queries": [messages]})
            assert reply.status_code == 200, reply.text
            return reply.json()

        traced = loop(EASY, step(1, result="Traceback (most recent call last)"))
        assert routed(traced)["decisions"][0]["model"] == "weak"
        assert routed(traced, "score")["models"] == ["weak"]
        looped = loop(EASY, *[step(n) for n in range(3)])
        assert routed(looped)["decisions"][0]["cause"] == "escalated"


def unable_pool() -> list[Model]:
    return [replace(model, vision=False) for model in POOL]


def picture() -> list[dict[str, Any]]:
    content = [{"type": "text", "text": EASY}, {"type": "image_url", "image_url": {"url": "https://e.org/a.png"}}]
    return [{"role": "user", "content": content}]


@pytest.mark.parametrize("sessions", [Conversations(0.3), Conversations(prices=SwitchPrices(models=POOL))])
def test_a_session_does_not_hide_that_no_model_can_serve_a_request(router: Words, sessions: Conversations) -> None:
    gateway = Gateway(router, rules=RequestRules(pool=unable_pool(), sessions=sessions))
    assert asked(gateway, [user(EASY)], session_id="s").model == "weak"
    found = asked(gateway, picture(), session_id="s")
    assert (found.model, found.cause) == ("strong", "unable")
    assert asked(gateway, [user(EASY)], session_id="s").model == "weak"
    gateway.close()


def test_a_loop_is_not_escalated_to_a_strong_model_that_cannot_read_the_image(router: Words) -> None:
    pool = [replace(POOL[0], vision=False), POOL[1]]
    gateway = Gateway(router, rules=RequestRules(pool=pool, sessions=Conversations(0.0)))
    messages = [*picture(), *(message for n in range(3) for message in step(n))]
    selection = asyncio.run(gateway.select(messages, facts=gateway.facts_of({"messages": messages})))
    assert (selection.model, selection.fallbacks) == ("weak", ())
    gateway.close()


def test_a_loop_goes_to_strong_alone_where_several_models_would_answer_together(router: Words) -> None:
    rules = RequestRules(sessions=Conversations(0.0))
    facts = rules.facts_of({"messages": loop(EASY, *[step(n) for n in range(3)])}, router)
    together = replace(router.route(EASY), targets=("weak", "strong"))
    found = rules.decided(together, facts, router)
    assert (found.model, found.cause, found.targets) == ("strong", "escalated", ())


def test_a_decision_for_a_model_that_the_gateway_lacks_is_for_the_next_one_and_no_outage() -> None:
    router = Words()
    rules = RequestRules(sessions=Conversations(0.1))
    three = replace(
        router.route(EASY), model="third", candidates=("third", "weak", "strong"), targets=("third", "weak")
    )
    gateway = Gateway(
        router,
        models={"strong": "strong", "weak": "weak"},
        policy=SimpleNamespace(decide=lambda *_: [three]),
        rules=rules,
    )
    found = asked(gateway, [user(EASY)], session_id="s")
    assert (found.model, found.candidates, found.targets) == ("weak", ("weak", "strong"), ("weak",))
    assert "down" not in found.reason
    gateway.close()
