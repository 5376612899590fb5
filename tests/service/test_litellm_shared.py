"""LiteLLM proxies that share a Redis: the plug-ins of two processes, as their environment sets them up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.redis_server import RedisServer

from routelearn.routers.errors import InputError
from routelearn.service.litellm.request_hook import Hook
from routelearn.service.litellm.settings import Plugins

redis = pytest.importorskip("redis")
pytestmark = pytest.mark.slow
HARD, EASY = "Prove that the square root of 2 is irrational.", "Say hello to Ana."


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as running:
        yield running


def proxies(server: RedisServer, **more: str) -> list[Plugins]:
    # A busy machine must not make the store seem down.
    url = f"{server.url}?socket_timeout=10&socket_connect_timeout=10"
    names = {"STRONG": "strong", "WEAK": "weak", "GENERAL": "off", "SESSION_MARGIN": "1", "REDIS_URL": url}
    return [Plugins({f"ROUTELEARN_{name}": value for name, value in {**names, **more}.items()}) for _ in range(2)]


def model(plugins: Plugins, text: str, session: str | None = None) -> str:
    metadata = {} if session is None else {"session_id": session}
    data: dict[str, Any] = {"model": "auto", "messages": [{"role": "user", "content": text}], "metadata": metadata}
    asyncio.run(Hook(plugins.gateway).async_pre_call_hook(SimpleNamespace(metadata=None), None, data, "acompletion"))
    return str(data["model"])


def test_a_session_keeps_its_model_at_another_proxy(server: RedisServer) -> None:
    one, other = proxies(server)
    assert (model(one, HARD), model(other, EASY)) == ("strong", "weak")
    assert model(one, HARD, "s") == "strong"
    assert model(other, EASY, "s") == "strong"
    assert model(other, EASY, "t") == "weak"
    stranger, _ = proxies(server, LOG_SALT="another secret")
    assert model(stranger, EASY, "s") == "weak"


def test_a_model_that_one_proxy_finds_down_is_skipped_by_the_other(server: RedisServer) -> None:
    one, other = proxies(server)
    assert model(other, HARD) == "strong"
    for _ in range(5):
        one.gateway.record("strong", ok=False, error=ConnectionRefusedError())
    end = time.monotonic() + 30
    while model(other, HARD) != "weak":
        assert time.monotonic() < end
        time.sleep(0.05)


def test_without_the_store_each_proxy_answers_by_itself(server: RedisServer) -> None:
    one, other = proxies(server)
    assert model(one, HARD, "s") == "strong"
    server.kill()
    assert model(one, EASY, "s") == "strong"
    assert model(other, EASY, "s") == "weak"


def test_a_wrong_url_is_refused_with_its_variable_and_without_its_password() -> None:
    plugins = proxies(SimpleNamespace(url="redis://:geheim@host:x/0"))[0]  # type: ignore[arg-type]
    with pytest.raises(InputError, match="ROUTELEARN_REDIS_URL: the URL of the store is not shown") as refused:
        _ = plugins.gateway
    assert "geheim" not in repr(refused.value)
    assert refused.value.__suppress_context__
