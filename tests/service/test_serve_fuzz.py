"""Malformed requests get 4xx and nothing else: generated from the OpenAPI document, and by hand on a bare socket.

Ten thousand instead of a few hundred:
ROUTELEARN_FUZZ=10000 python -m pytest tests/service/test_serve_fuzz.py -k malformed
"""

from __future__ import annotations

import os
import random
import re
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
from helpers.serve import Server, wait_for
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode

pytestmark = pytest.mark.slow

CASES = int(os.environ.get("ROUTELEARN_FUZZ", "300"))
PATHS = ("/v1/score", "/v1/route", "/v1/outcomes")
BODY = b'{"queries":["Hello"]}'
HEAD = b"POST /v1/score HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
WHOLE = HEAD + b"content-length: %d\r\n\r\n" % len(BODY) + BODY


@pytest.fixture(scope="module")
def server(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Small limits make small examples, which are generated quickly; half a second makes hanging visible."""
    log = str(tmp_path_factory.mktemp("log") / "decisions.jsonl")  # without one, logged outcomes are refused
    options = ("--max-queries", "4", "--max-characters", "5000", "--body-timeout", "0.5", "--decision-log", log)
    with Server(bundle, *options) as running:
        yield running
        assert running.process.poll() is None
        assert not [line for line in running.log if " ERROR " in line]


@pytest.fixture(scope="module")
def schema(server: Server) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json")


def generated(examples: int) -> settings:
    """Examples that nobody keeps or shrinks."""
    return settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


@pytest.mark.parametrize("path", PATHS)
def test_malformed_requests_get_only_4xx(schema: schemathesis.BaseSchema, path: str) -> None:
    operation = schema[path]["POST"]
    seen: Counter[int] = Counter()

    @generated(CASES // len(PATHS))
    @given(operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))
    def ask(case: schemathesis.Case) -> None:
        reply = case.call(timeout=20)
        seen[reply.status_code] += 1
        assert 400 <= reply.status_code < 500, (reply.status_code, case.as_curl_command())
        assert set(reply.json()) == {"error"}

    ask()
    print(f"{path}: {dict(seen)}")  # noqa: T201 - the figures of a long run (pytest -s)
    assert sum(seen.values()) >= CASES // len(PATHS)


@pytest.mark.parametrize("path", PATHS)
def test_valid_requests_get_what_the_document_says(schema: schemathesis.BaseSchema, path: str) -> None:
    operation = schema[path]["POST"]

    @generated(40)
    @given(operation.as_strategy(generation_mode=GenerationMode.POSITIVE))
    def ask(case: schemathesis.Case) -> None:
        reply = case.call(timeout=20)
        # A schema cannot say that a chat may exceed what its texts may have together, nor that cached tokens are a part
        # of those that were read, nor that there is one session for each query, if the service keeps sessions.
        if reply.status_code != 200:
            error = reply.json()["error"]
            param = error.get("param", "")
            assert error["type"] == "too_large" or param.endswith(".cached_tokens") or param == "sessions", error
        operation.validate_response(reply)

    ask()


def test_what_is_read_is_as_the_document_says(schema: schemathesis.BaseSchema) -> None:
    for path in ("/v1/router", "/v1/status", "/v1/savings", "/healthz", "/metrics", "/"):
        operation = schema[path]["GET"]
        operation.validate_response(operation.Case().call(timeout=20))


def statuses(answer: bytes) -> list[int]:
    return [int(code) for code in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", [400]),  # TLS
        (b"GET / HTTP/9.9\r\n\r\n", [400]),
        (b"POST /v1/score HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n", [400]),
        (b"POST /v1/score HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\n", [400]),
        (HEAD + b"transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n", [400]),
        (HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n", [400]),
        (HEAD + b"content-length: 99999999999999999999999999\r\n\r\n", [400]),
        (HEAD + b"content-length: 9999999999\r\n\r\n", [413]),
        (HEAD + b"\r\n", [400]),  # no body at all
        (HEAD + b"content-length: 5\r\n\r\n\xff\xfe\xfd\xfc\xfb", [400]),
        (HEAD + b"content-length: 21\r\nexpect: 100-continue\r\n\r\n" + BODY, [100, 200]),
        (HEAD.replace(b"1.1", b"1.0") + b"content-length: 21\r\n\r\n" + BODY, [200]),
        (b"GET /%ff%00/../../etc/passwd?%c3%a9 HTTP/1.1\r\nhost: x\r\n\r\n", [404]),
        (b"GET /\xff?\xc3\xa9 HTTP/1.1\r\nhost: x\r\n\r\n", [400]),
        (b"GET http://evil/ HTTP/1.1\r\nhost: x\r\n\r\n", [200]),
        (b"OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n", [404]),
        (b"OPTIONS /v1/score HTTP/1.1\r\nhost: x\r\norigin: http://evil\r\n\r\n", [405]),
        (b"TRACE /v1/score HTTP/1.1\r\nhost: x\r\n\r\n", [405]),
        (b"HEAD /healthz HTTP/1.1\r\nhost: x\r\n\r\n", [200]),
        (b"GET /healthz HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n", [200]),
        (b"\r\n\r\nGET /healthz HTTP/1.1\r\nhost: x\r\n\r\n", [200]),
        (WHOLE * 5, [200] * 5),  # pipelined
    ],
)
def test_whatever_comes_over_a_socket_is_answered(server: Server, data: bytes, expected: list[int]) -> None:
    assert statuses(server.send(data)) == expected
    assert server.ask("/healthz")[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        b"x: " + b"y" * 2_000_000,  # one that never ends
        b"x" * 2_000_000,
        b"".join(b"x%d: y\r\n" % number for number in range(100_000)),
    ],
    ids=["long value", "long name", "many"],
)
def test_a_huge_head_is_refused(server: Server, headers: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 20) as client:
        try:
            client.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n" + headers + b"\r\n\r\n")
            answer = client.recv(65536)
        except OSError:  # closed while we were sending
            answer = b""
    assert statuses(answer) in ([], [431])
    assert server.ask("/healthz")[0] == 200


def test_clients_that_leave_half_way_cost_nothing(server: Server) -> None:
    for data in (b"", b"POST", HEAD, HEAD + b"content-length: 100\r\n\r\n{", WHOLE):
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", server.port), 20) as client:
                client.sendall(data)
        server.send(data, half_close=True)
    wait_for(lambda: "routelearn_http_waiting 0.0" in server.ask("/metrics")[1])
    assert statuses(server.send(WHOLE)) == [200]


def test_random_bytes_never_bring_a_5xx(server: Server) -> None:
    generator = random.Random(0)
    closing = WHOLE.replace(b"host: x", b"host: x\r\nconnection: close")
    for _ in range(300):
        data = bytearray(closing)
        for _ in range(generator.randrange(1, 12)):
            data[generator.randrange(len(data))] = generator.randrange(256)
        assert all(status < 500 for status in statuses(server.send(bytes(data)))), bytes(data)
    assert statuses(server.send(WHOLE)) == [200]


def test_a_million_wrong_items_are_refused_at_once(bundle: Path) -> None:
    with Server(bundle) as server:
        for content in (b'{"queries":[' + b"1," * 500_000 + b"1]}", b'{"queries":[[' + b"1," * 500_000 + b"1]]}"):
            status, _, body = server.call("/v1/score", content)
            assert status == 422
            assert len(body) < 500
