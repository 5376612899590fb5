"""`routelearn serve` and its clients: trailers, invented names and ids, and what the log says of requests that fail."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.serve import TOKEN, Server

pytestmark = pytest.mark.slow

PROMPT = "my-secret-prompt"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("log") / "decisions.jsonl"
    options = ["--strong", "large", "--weak", "small", "--decision-log", str(log), "--log-level", "debug"]
    with Server("rules", *options, ROUTELEARN_TOKEN=TOKEN) as running:
        yield running


def chunked(head: bytes, trailer: bytes) -> bytes:
    body = json.dumps({"queries": [PROMPT]}).encode()
    return (
        b"POST /v1/route HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nconnection: close\r\n"
        + head
        + b"\r\n%x\r\n%b\r\n0\r\n%b\r\n" % (len(body), body, trailer)
    )


AUTHORIZATION = b"authorization: Bearer " + TOKEN.encode() + b"\r\n"
JSON = b"content-type: application/json\r\n"


@pytest.mark.parametrize(
    ("head", "trailer", "status"),
    [
        (JSON + AUTHORIZATION, b"", b"200"),
        (JSON, AUTHORIZATION, b"401"),
        (JSON, b"Authorization: " + AUTHORIZATION.partition(b": ")[2], b"401"),
        (JSON + b"trailer: authorization\r\n", AUTHORIZATION, b"401"),
        (AUTHORIZATION, JSON, b"415"),
        (JSON + AUTHORIZATION, b"content-type: text/plain\r\nauthorization: Bearer wrong\r\n", b"200"),
    ],
)
def test_a_trailer_is_no_header(server: Server, head: bytes, trailer: bytes, status: bytes) -> None:
    assert server.send(chunked(head, trailer)).split()[1] == status


def test_a_request_after_a_trailer_has_its_own_headers(server: Server) -> None:
    first = chunked(JSON + AUTHORIZATION, b"x: y\r\n").replace(b"connection: close\r\n", b"")
    assert server.send(first + chunked(JSON, AUTHORIZATION)).count(b"HTTP/1.1 200 ") == 1


def test_outcomes_of_ids_that_nobody_got_are_kept_apart(server: Server) -> None:
    _, reply = server.ask("/v1/route", {"queries": ["a", "b"]}, token=TOKEN)
    logged = [{"id": name, "outcome": 1} for name in (*reply["ids"], "invented", "also invented")]
    assert server.ask("/v1/outcomes", {"logged": logged}, token=TOKEN) == (200, {"taken": 4, "unknown": 2})


def test_invented_models_and_use_cases_leave_the_labels_of_the_pool(server: Server) -> None:
    for prefix in ("model", "use case"):
        escalations = [
            {"model": f"{prefix} {number}", "use_case": f"{prefix} {number}", "escalated": False}
            for number in range(200)
        ]
        assert server.ask("/v1/outcomes", {"escalations": escalations}, token=TOKEN)[0] == 200
    real = [{"model": "small", "escalated": False, "key": "a retry"}] * 3
    assert server.ask("/v1/outcomes", {"escalations": real}, token=TOKEN)[0] == 200
    metrics = server.ask("/metrics", token=TOKEN)[1]
    assert 'routelearn_requests_total{model="small",use_case=""} 3.0' in metrics
    assert metrics.count("routelearn_requests_total{") <= 52


def test_the_log_of_requests_that_fail_quotes_no_prompt_and_no_token(server: Server, tmp_path: Path) -> None:
    for content in (
        {"queries": [{"role": PROMPT}]},
        {"queries": [[{"role": PROMPT, "content": 7}]]},
        {"queries": [[{"content": PROMPT}, PROMPT]]},
        {"queries": [PROMPT], "threshold": PROMPT},
        {"queries": [PROMPT], "context": {PROMPT: PROMPT}},
        {"queries": [PROMPT], PROMPT: 1},
    ):
        status, reply = server.ask("/v1/route", content, token=TOKEN)
        assert status == 422, reply
    server.send(b"POST /v1/route HTTP/1.1\r\n" + PROMPT.encode() + b"\r\n\r\n")
    log = "".join(server.log)
    assert PROMPT not in log
    assert TOKEN not in log
    assert "Traceback" not in log
