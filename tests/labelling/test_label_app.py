"""Whom the labelling page lets in, and what the command refuses."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.cli import run
from starlette.testclient import TestClient

from routelearn.labelling import ModelAnswer, Prompt, Votes
from routelearn.labelling.label_page import label_app

TOKEN = "a-token-that-the-tests-know-0123456789"
JSON = {"content-type": "application/json"}
VOTE = json.dumps({"number": 1, "choice": "left"})


@pytest.fixture
def votes(tmp_path: Path) -> Iterator[Votes]:
    answers = [
        ModelAnswer(prompt=Prompt(query=f"Question {number}?"), model=model, response=model[-1])
        for number in range(3)
        for model in ("model-a", "model-b")
    ]
    with Votes(answers, tmp_path / "labels.jsonl") as votes:
        yield votes


@pytest.fixture
def client(votes: Votes) -> TestClient:
    return TestClient(label_app(votes, TOKEN), base_url="http://127.0.0.1:8123")


@pytest.mark.parametrize("host", ["127.0.0.1:8123", "localhost:9", "localhost", "[::1]:8123", "[::1]"])
def test_a_browser_on_this_machine_gets_the_page(client: TestClient, host: str) -> None:
    reply = client.get(f"/{TOKEN}/", headers={"host": host})
    assert reply.status_code == 200
    assert reply.headers["cache-control"] == "no-store"
    policy = reply.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'nonce-")
    assert "unsafe" not in policy
    assert TOKEN not in reply.text


@pytest.mark.parametrize("host", ["evil.example:8123", "evil.example", "127.0.0.1.evil.example", "", "[::1].evil:80"])
def test_a_name_that_its_owner_points_to_this_machine_is_refused(client: TestClient, votes: Votes, host: str) -> None:
    assert client.get(f"/{TOKEN}/state", headers={"host": host}).status_code == 403
    assert client.post(f"/{TOKEN}/vote", headers={"host": host, **JSON}, content=VOTE).status_code == 403
    assert votes.records() == []


@pytest.mark.parametrize("path", ["/", "/state", "/wrong/", "/wrong/state", f"//{TOKEN}x/", "/docs", "/openapi.json"])
def test_every_request_needs_the_token(client: TestClient, path: str) -> None:
    reply = client.get(path, follow_redirects=False)
    assert reply.status_code == 404
    assert "Question" not in reply.text


@pytest.mark.parametrize(
    ("status", "headers", "content"),
    [
        (415, {}, VOTE),
        (415, {"content-type": "text/plain"}, VOTE),
        (415, {"content-type": "application/x-www-form-urlencoded"}, VOTE),
        (403, {**JSON, "origin": "http://evil.example"}, VOTE),
        (403, {**JSON, "origin": "null"}, VOTE),
        (413, JSON, VOTE + " " * 1000),
        (422, JSON, b"\xff"),
        (422, JSON, "[" * 900),
        (422, JSON, "[1]"),
        (422, JSON, json.dumps({"number": "1", "choice": "left"})),
        (422, JSON, json.dumps({"number": True, "choice": "left"})),
        (422, JSON, json.dumps({"number": 1, "choice": "best"})),
        (422, JSON, json.dumps({"number": 1, "choice": ["left"]})),
        (200, {**JSON, "origin": "http://127.0.0.1:8123"}, VOTE),
    ],
)
def test_only_the_page_can_vote(
    client: TestClient, votes: Votes, status: int, headers: dict[str, str], content: Any
) -> None:
    assert client.post(f"/{TOKEN}/vote", headers=headers, content=content).status_code == status
    assert len(votes.records()) == (status == 200)
    assert votes.out.exists() == (status == 200)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS"])
def test_only_post_votes(client: TestClient, votes: Votes, method: str) -> None:
    assert client.request(method, f"/{TOKEN}/vote", headers=JSON, content=VOTE).status_code == 405
    assert votes.records() == []


def test_a_vote_sent_twice_is_stored_once_and_the_reply_says_so(client: TestClient, votes: Votes) -> None:
    replies = [client.post(f"/{TOKEN}/vote", headers=JSON, content=VOTE).json() for _ in range(2)]
    assert [reply["stored"] for reply in replies] == [True, False]
    assert replies[1]["number"] == 2
    assert len(votes.records()) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on files")
def test_a_vote_that_the_disk_does_not_take_is_not_stored_and_harms_no_other(
    client: TestClient, votes: Votes, tmp_path: Path
) -> None:
    import resource

    client.post(f"/{TOKEN}/vote", headers=JSON, content=VOTE)
    journal = tmp_path / "labels.jsonl.journal"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (journal.stat().st_size + 10, limits[1]))
    try:
        reply = client.post(f"/{TOKEN}/vote", headers=JSON, content=json.dumps({"number": 2, "choice": "tie"}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert reply.status_code == 507
    assert "make room" in reply.text
    assert client.get(f"/{TOKEN}/state").json()["number"] == 2
    assert client.post(f"/{TOKEN}/vote", headers=JSON, content=json.dumps({"number": 2, "choice": "tie"})).is_success
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    assert [line.get("choice") for line in lines] == [None, "left", "tie"]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "127.0.0.2", "192.168.0.7", "example.com", ""])
def test_an_address_that_others_can_reach_is_refused(tmp_path: Path, host: str) -> None:
    done = run("label", tmp_path / "answers.jsonl", "-o", tmp_path / "l.jsonl", "--host", host)
    assert done.returncode == 2
    assert "which only you can reach" in done.stderr
    assert list(tmp_path.iterdir()) == []
