"""The HTTP service without a server: the application is called in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from routelearn.routers.fallback import FallbackRouter
from routelearn.routers.learned import LearnedRouter
from routelearn.routers.loading import load
from routelearn.service.http.app import create_app
from routelearn.service.http.middleware import Tokens
from routelearn.service.http.slot import RouterSlot

QUERIES = ["What is 2 plus 2?", "Prove that the square root of 2 is irrational."]
TOKEN = "a-token-for-the-tests"


def slot(bundle: Path) -> RouterSlot:
    return RouterSlot(bundle, lambda: FallbackRouter(load(bundle)))


@pytest.fixture
def client(bundle: Path) -> Iterator[TestClient]:
    with TestClient(create_app(slot(bundle))) as running:
        yield running


def test_scores_and_decisions_are_those_of_the_router(client: TestClient, router: LearnedRouter) -> None:
    decisions = FallbackRouter(router).route_batch(QUERIES)
    scored = client.post("/v1/score", json={"queries": QUERIES})
    assert scored.status_code == 200
    assert scored.json()["scores"] == pytest.approx([decision.score for decision in decisions], abs=1e-6)
    routed = client.post("/v1/route", json={"queries": QUERIES}).json()["decisions"]
    assert [decision["model"] for decision in routed] == [decision.model for decision in decisions]


def test_every_page_that_is_only_read_answers(client: TestClient) -> None:
    for path in ("/healthz", "/metrics", "/v1/status", "/v1/router", "/openapi.json"):
        assert client.get(path).status_code == 200, path


def test_wrong_requests_are_refused(client: TestClient) -> None:
    assert client.post("/v1/score", json={"queries": "no list"}).status_code == 422
    assert client.post("/v1/score", content=b"{").status_code in {400, 415}
    assert client.get("/v1/nothing").status_code == 404


def test_without_the_token_nothing_is_scored(bundle: Path) -> None:
    with TestClient(create_app(slot(bundle), tokens=Tokens(user=TOKEN.encode()))) as client:
        assert client.post("/v1/score", json={"queries": QUERIES}).status_code == 401
        headers = {"authorization": f"Bearer {TOKEN}"}
        assert client.post("/v1/score", json={"queries": QUERIES}, headers=headers).status_code == 200
