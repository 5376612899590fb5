"""Sessions are read and written beside the event loop, whatever becomes of a request."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from test_batcher import Lengths

from routelearn.policies.conversation import Conversations
from routelearn.policies.session_state import MemorySessions
from routelearn.service.gateway import Gateway
from routelearn.service.litellm.request_hook import Hook
from routelearn.service.request_rules import RequestRules

NAMES = {"strong": "gpt-large", "weak": "gpt-small"}


class Watched(MemorySessions):
    """Keeps the threads that asked it."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: list[int] = []

    def update(self, *arguments: Any) -> Any:
        self.threads.append(threading.get_ident())
        return super().update(*arguments)

    def alias(self, *arguments: Any) -> None:
        self.threads.append(threading.get_ident())
        super().alias(*arguments)


@pytest.mark.parametrize("what", ["text", "no query", "token ids", "closed"])
def test_no_request_keeps_the_event_loop_waiting_for_the_store(what: str) -> None:
    store = Watched()
    gateway = Gateway(Lengths(), models=NAMES, rules=RequestRules(sessions=Conversations(0.1, store=store)))
    hook = Hook(gateway)
    data: dict[str, Any] = {"model": "auto", "metadata": {"session_id": "s"}}
    data |= {"text": {"input": "Hi"}, "closed": {"input": "Hi"}, "token ids": {"prompt": [1, 2]}}.get(what, {})
    if what == "closed":
        gateway.close()

    async def request() -> int:
        await hook.async_pre_call_hook(SimpleNamespace(metadata=None), None, data, "aresponses")
        await hook.async_post_call_success_hook(data, SimpleNamespace(), SimpleNamespace(id="r", object="response"))
        return threading.get_ident()

    loop = asyncio.run(request())
    assert data["model"] in NAMES.values()
    assert len(store.threads) == 2
    assert loop not in store.threads
    gateway.close()
