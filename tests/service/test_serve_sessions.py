"""The HTTP service keeps the models of sessions, by the ids of a request or by how a chat began."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from routelearn.policies.conversation import Conversations
from routelearn.policies.switch_price import SwitchPrices
from routelearn.routers.base import Router
from routelearn.routers.decision import Floats, Model
from routelearn.routers.errors import InputError
from routelearn.routers.query import Query, transcript
from routelearn.service.http.app import create_app
from routelearn.service.http.slot import RouterSlot
from routelearn.service.request_rules import RequestRules

POOL = [Model("strong", 3.0, 15.0, cached_input_price=0.3), Model("weak", 0.3, 1.5, cached_input_price=0.03)]
LONG = "A long document. " * 3000


class Marked(Router):
    """Scores the last turn by the number in it."""

    def __init__(self) -> None:
        super().__init__(POOL, "strong", "weak", threshold=0.6)

    def quality(self, queries: Sequence[Query]) -> Floats:
        found = [re.findall(r"score (0\.\d+)", transcript(query)) for query in queries]
        scores = [float(marks[-1]) if marks else 0.5 for marks in found]
        return np.array([[score, 1 - score] for score in scores], np.float32)


class Renamed(Marked):
    """The same with models of other names."""

    def __init__(self, strong: str, weak: str) -> None:
        Router.__init__(self, [Model(strong, 3.0, 15.0), Model(weak, 0.3, 1.5)], strong, weak, threshold=0.6)


def chat(*turns: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[number % 2], "content": text} for number, text in enumerate(turns)]


@pytest.fixture
def client() -> Iterator[TestClient]:
    rules = RequestRules(sessions=Conversations(prices=SwitchPrices(models=POOL)))
    with TestClient(create_app(RouterSlot("marked", Marked), rules=rules)) as running:
        yield running


def routed(client: TestClient, queries: list[Any], **more: Any) -> list[dict[str, Any]]:
    reply = client.post("/v1/route", json={"queries": queries, **more})
    assert reply.status_code == 200, reply.text
    decisions: list[dict[str, Any]] = reply.json()["decisions"]
    return decisions


def test_a_long_session_keeps_its_model_where_a_single_query_would_change_it(client: TestClient) -> None:
    first, later = f"{LONG} score 0.3", "score 0.61"
    assert routed(client, [first], sessions=["s"])[0]["model"] == "weak"
    asked = chat(first, "Yes.", later)
    kept = routed(client, [asked], sessions=["s"])[0]
    assert (kept["model"], kept["cause"]) == ("weak", "kept")
    assert routed(client, [asked], sessions=["another"])[0]["model"] == "strong"


def test_without_ids_a_chat_is_known_by_how_it_began(client: TestClient) -> None:
    first = f"{LONG} score 0.3"
    assert routed(client, [chat(first)])[0]["model"] == "weak"
    assert routed(client, [chat(first, "Yes.", "score 0.61")])[0]["cause"] == "kept"
    assert routed(client, [chat(f"{first} ", "Yes.", "score 0.61")])[0]["model"] == "strong"


def test_the_queries_of_one_request_may_belong_to_several_sessions(client: TestClient) -> None:
    queries = [f"{LONG} score 0.3", f"{LONG} score 0.9"]
    assert [one["model"] for one in routed(client, queries, sessions=["a", "b"])] == ["weak", "strong"]
    later = [chat(queries[0], "Yes.", "score 0.61"), chat(queries[1], "Yes.", "score 0.61")]
    assert [one["model"] for one in routed(client, later, sessions=["a", "b"])] == ["weak", "strong"]


def test_scores_belong_to_no_session(client: TestClient) -> None:
    for _ in range(2):
        assert client.post("/v1/score", json={"queries": [f"{LONG} score 0.61"]}).json()["models"] == ["strong"]
    assert routed(client, [f"{LONG} score 0.61"])[0]["cause"] == "threshold"


def test_a_wrong_number_of_sessions_is_refused(client: TestClient) -> None:
    reply = client.post("/v1/route", json={"queries": ["score 0.1"], "sessions": ["a", "b"]})
    assert reply.status_code == 422
    assert reply.json()["error"]["message"] == "sessions has 2 entries for 1 queries; expected one for each"


def test_a_service_without_sessions_says_so() -> None:
    with TestClient(create_app(RouterSlot("marked", Marked))) as client:
        reply = client.post("/v1/route", json={"queries": ["score 0.1"], "sessions": ["a"]})
    assert reply.status_code == 422
    assert "expected it to run with --sessions" in reply.json()["error"]["message"]


def test_a_bundle_without_a_model_that_the_pool_describes_is_refused_and_requests_go_on() -> None:
    routers = [Renamed("strong", "weak"), Renamed("large", "small")]
    slot = RouterSlot("marked", lambda: routers.pop(0))
    with TestClient(create_app(slot, rules=RequestRules(pool=[Model("weak", vision=False)]))) as client:
        with pytest.raises(InputError, match=r"describes \['weak'\]"):
            slot.reload()
        assert routed(client, [chat("score 0.1")])[0]["model"] == "weak"


def test_sessions_go_on_with_the_models_of_a_bundle_that_has_other_names() -> None:
    routers = [Renamed("strong", "weak"), Renamed("large", "small")]
    slot = RouterSlot("marked", lambda: routers.pop(0))
    rules = RequestRules(sessions=Conversations(prices=SwitchPrices(models=POOL)))
    with TestClient(create_app(slot, rules=rules)) as client:
        assert routed(client, [chat("score 0.9")], sessions=["s"])[0]["model"] == "strong"
        slot.reload()
        for query, model in (("score 0.9", "large"), ("score 0.1", "small")):
            found = routed(client, [chat(query)], sessions=["s"])[0]
            assert (found["model"], set(found["candidates"])) == (model, {"large", "small"})
