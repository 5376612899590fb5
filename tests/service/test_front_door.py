"""Clients of OpenAI and Anthropic that are pointed at `routelearn serve`: it says that it only decides."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from helpers.serve import Server
from starlette.testclient import TestClient
from test_app import TOKEN, client, slot

from routelearn.service.http.app import create_app
from routelearn.service.http.middleware import Tokens

__all__ = ["client"]

PATHS = [
    *(("POST", f"/v1/{name}") for name in ("chat/completions", "completions", "responses", "messages")),
    ("GET", "/v1/models"),
]


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_the_reply_has_the_shape_of_all_errors_and_names_the_proxy(client: TestClient, method: str, path: str) -> None:
    reply = client.request(method, path, json={"model": "auto"} if method == "POST" else None)
    assert reply.status_code == 501
    error = reply.json()["error"]
    assert set(error) == {"type", "message"}
    assert error["type"] == "not_implemented"
    assert "routelearn proxy answers such requests" in error["message"]
    assert reply.headers["x-should-retry"] == "false"


def test_openapi_describes_these_paths(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    for method, path in PATHS:
        assert set(paths[path]) == {method.lower()}
        assert set(paths[path][method.lower()]["responses"]) == {"401", "501"}


def test_the_requests_are_counted_by_their_path(client: TestClient) -> None:
    client.post("/v1/responses", json={})
    assert 'routelearn_http_requests_total{path="/v1/responses",status="501"} 1.0' in client.get("/metrics").text


def test_a_service_with_a_token_asks_for_it_first(bundle: Path) -> None:
    with TestClient(create_app(slot(bundle), tokens=Tokens(user=TOKEN.encode()))) as guarded:
        assert guarded.get("/v1/models").status_code == 401
        assert guarded.get("/v1/models", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 501


@pytest.mark.slow
def test_the_openai_client_shows_it_at_once(bundle: Path) -> None:
    asked: Any = [{"role": "user", "content": "hello"}]
    with Server(bundle) as server:
        ours = openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="any", max_retries=2)
        calls: list[Callable[[], object]] = [
            ours.models.list,
            lambda: ours.chat.completions.create(model="auto", messages=asked),
            lambda: ours.chat.completions.create(model="auto", messages=asked, stream=True),
            lambda: ours.responses.create(model="auto", input="hello"),
            lambda: ours.completions.create(model="auto", prompt="hello"),
        ]
        for call in calls:
            with pytest.raises(openai.APIStatusError, match="routelearn proxy answers such requests") as error:
                call()
            assert error.value.status_code == 501
        text = server.ask("/metrics")[1]
    counted = [line for line in text.splitlines() if "requests_total" in line and 'status="501"' in line]
    assert sum(float(line.split()[-1]) for line in counted) == len(calls)  # the client repeats none
