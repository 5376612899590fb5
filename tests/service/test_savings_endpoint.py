"""The HTTP service counts what callers report that calls used, and has a shadow mode; all in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from test_app import QUERIES, TOKEN, slot

from routelearn.monitoring.decision_log import DecisionLog
from routelearn.monitoring.log_rows import read_log
from routelearn.monitoring.savings import Savings
from routelearn.policies.composed import Explore
from routelearn.routers.decision import Model
from routelearn.routers.fallback import FallbackRouter
from routelearn.routers.learned import LearnedRouter
from routelearn.routers.loading import load
from routelearn.service.http.app import create_app
from routelearn.service.http.middleware import Tokens
from routelearn.service.http.slot import RouterSlot

POOL = [Model("sim-max", 10.0, 30.0, cached_input_price=1.0), Model("sim-small", 1.0, 3.0)]


def usage(model: str = "sim-small", **more: Any) -> dict[str, Any]:
    return {"model": model, "input_tokens": 1000, "output_tokens": 100, **more}


@pytest.fixture
def client(bundle: Path, tmp_path: Path) -> Iterator[TestClient]:
    log = DecisionLog(tmp_path / "log.jsonl")
    with TestClient(create_app(slot(bundle), savings=Savings(POOL), decision_log=log)) as running:
        yield running


def test_what_callers_report_is_counted_shown_and_logged(client: TestClient, tmp_path: Path) -> None:
    ids = client.post("/v1/route", json={"queries": QUERIES}).json()["ids"]
    calls = [usage(id=ids[0], session="s"), usage("sim-max", id=ids[1], cost_usd=0.02), usage(id="unknown")]
    reply = client.post("/v1/outcomes", json={"usage": calls})
    assert reply.json() == {"taken": 3, "unknown": 1}
    found = client.get("/v1/savings").json()
    assert found["requests"] == 3
    assert found["spent_usd"] == pytest.approx(0.0226)
    assert found["always_strong_usd"] == pytest.approx(0.046)
    assert client.get("/v1/status").json()["savings"] == found
    metrics = client.get("/metrics").text
    assert "routelearn_spent_usd_total 0.0226" in metrics
    assert "routelearn_shadow 0.0" in metrics
    used = {row["id"]: [one["model"] for one in row["usage"]] for row in read_log(tmp_path / "log.jsonl")}
    assert used == {ids[0]: ["sim-small"], ids[1]: ["sim-max"]}


@pytest.mark.parametrize(
    ("wrong", "message", "param"),
    [
        (
            {"cached_tokens": 2000},
            "usage[1].cached_tokens is 2000; expected at most input_tokens, which is 1000",
            "usage[1].cached_tokens",
        ),
        ({"cost_usd": -1}, "usage[1].cost_usd is -1; expected a number of 0 or more", "usage[1].cost_usd"),
        ({"input_tokens": 1.5}, "usage[1].input_tokens is 1.5; expected a whole number", "usage[1].input_tokens"),
        ({"model": ""}, "usage[1].model is a string of 0 characters; expected 1 or more", "usage[1].model"),
        ({"tokens": 1}, "unknown field 'tokens'; expected model, input_tokens, output_tokens", "usage[1]"),
    ],
)
def test_a_wrong_report_is_refused_as_a_whole(
    client: TestClient, wrong: dict[str, Any], message: str, param: str
) -> None:
    reply = client.post("/v1/outcomes", json={"usage": [usage(), usage(**wrong)]})
    assert reply.status_code == 422
    assert message in reply.json()["error"]["message"]
    assert reply.json()["error"]["param"] == param
    assert client.get("/v1/savings").json()["requests"] == 0


def test_an_id_without_a_log_is_refused_and_a_call_without_an_id_is_counted(bundle: Path) -> None:
    with TestClient(create_app(slot(bundle), savings=Savings(POOL))) as client:
        reply = client.post("/v1/outcomes", json={"usage": [usage(id="x")]})
        assert (reply.status_code, reply.json()["error"]["param"]) == (422, "usage[0].id")
        assert client.post("/v1/outcomes", json={"usage": [usage()]}).json() == {"taken": 1, "unknown": 0}


def test_the_savings_need_the_token(bundle: Path) -> None:
    with TestClient(create_app(slot(bundle), tokens=Tokens(user=TOKEN.encode()))) as client:
        assert client.get("/v1/savings").status_code == 401
        assert client.get("/v1/savings", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_the_openapi_document_describes_the_usage_and_the_savings(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    assert schemas["OutcomesRequest"]["properties"]["usage"]["maxItems"] == 1024
    assert set(schemas["CallUsage"]["required"]) == {"model", "input_tokens", "output_tokens"}
    assert "/v1/savings" in document["paths"]
    assert "saved_usd" in schemas["SavingsReport"]["properties"]


def test_calls_of_drawn_decisions_give_an_interval(bundle: Path, tmp_path: Path) -> None:
    pool = ("sim-max", "sim-small")
    explored = RouterSlot(bundle, lambda: FallbackRouter(load(bundle)), Explore(None, 0.5, candidates=pool, seed=0))
    app = create_app(explored, savings=Savings(POOL), decision_log=DecisionLog(tmp_path / "log.jsonl"))
    queries = [f"Say hello to Ana, number {number}." for number in range(400)]
    with TestClient(app) as client:
        reply = client.post("/v1/route", json={"queries": queries}).json()
        calls = [
            usage(decision["model"], id=name) for name, decision in zip(reply["ids"], reply["decisions"], strict=True)
        ]
        client.post("/v1/outcomes", json={"usage": calls})
        found = client.get("/v1/savings").json()
    assert found["interval"]["draws"] >= 30, found["why_no_interval"]
    low, high = found["interval"]["always_strong_usd"]
    assert low <= 400 * 0.013 + 1e-9 and high >= 400 * 0.013 - 1e-9


def test_in_shadow_mode_replies_name_strong_and_the_log_holds_the_decision(
    bundle: Path, tmp_path: Path, router: LearnedRouter
) -> None:
    log = DecisionLog(tmp_path / "log.jsonl")
    decisions = FallbackRouter(router).route_batch([*QUERIES, "Say hello to Ana."])
    with TestClient(create_app(slot(bundle), decision_log=log, shadow=True, savings=Savings(POOL))) as client:
        reply = client.post("/v1/route", json={"queries": [*QUERIES, "Say hello to Ana."]}).json()
        scored = client.post("/v1/score", json={"queries": QUERIES}).json()
        client.post("/v1/outcomes", json={"usage": [usage("sim-max", id=reply["ids"][0])]})
        assert client.get("/v1/status").json()["shadow"] is True
        assert "routelearn_shadow 1.0" in client.get("/metrics").text
        counted = client.get("/v1/status").json()["monitor"]["models"]
        assert client.get("/v1/savings").json()["saved_usd"] == pytest.approx(0)
    assert {(one["model"], one["cause"], one["propensity"]) for one in reply["decisions"]} == {
        ("sim-max", "shadow", 1.0)
    }
    for one, decision in zip(reply["decisions"], decisions, strict=True):
        assert f"the router would ask {decision.model}" in one["reason"]
        assert one["candidates"][0] == "sim-max"
        assert sorted(one["candidates"]) == sorted(decision.candidates)
    assert set(scored["models"]) == {"sim-max"}
    rows = list(read_log(tmp_path / "log.jsonl"))[:3]
    assert [row["model"] for row in rows] == [decision.model for decision in decisions]
    assert all(row["shadow"] and row["served"] == "sim-max" for row in rows)
    assert "usage" in rows[0]
    assert sum(counted.values()) == 5
    assert counted.get("sim-small", 0) > 0
