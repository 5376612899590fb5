"""`routelearn serve` as a process: what it answers, whom it lets in, what it refuses, how it ends."""

from __future__ import annotations

import hashlib
import json
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from helpers.cli import run
from helpers.serve import ADMIN, TOKEN, Server, wait_for

from routelearn.data.sample import Sample
from routelearn.monitoring.log_rows import read_log
from routelearn.monitoring.off_policy import off_policy_value
from routelearn.policies.threshold import StrongShare, Threshold
from routelearn.routers.fallback import FallbackRouter
from routelearn.routers.learned import LearnedRouter
from routelearn.routers.query import Query

pytestmark = pytest.mark.slow

CHAT = [{"role": "user", "content": "Prove it."}, {"role": "assistant", "content": None}]
QUERIES: list[Query] = ["What is 2 plus 2?", "Prove that the square root of 2 is irrational.", CHAT]


@pytest.fixture(scope="module")
def server(bundle: Path) -> Iterator[Server]:
    with Server(bundle) as running:
        yield running


@pytest.fixture(scope="module")
def guarded(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With tokens, tight limits and a decision log."""
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "token").write_text(TOKEN + "\n")
    options = ["--token-file", str(folder / "token"), "--decision-log", str(folder / "decisions.jsonl")]
    options += ["--max-body", "5000", "--max-queries", "20", "--max-characters", "300", "--body-timeout", "0.5"]
    with Server(bundle, *options, ROUTELEARN_ADMIN_TOKEN=ADMIN) as running:
        yield running


def test_scores_and_models_are_those_of_the_router(server: Server, router: LearnedRouter) -> None:
    status, reply = server.ask("/v1/score", {"queries": QUERIES})
    decisions = FallbackRouter(router).route_batch(QUERIES)
    assert status == 200
    assert reply["scores"] == pytest.approx([decision.score for decision in decisions], abs=1e-6)
    assert reply["models"] == [decision.model for decision in decisions]
    assert reply["sources"] == [decision.source for decision in decisions]


def test_decisions_are_those_of_the_router_in_every_field(server: Server, router: LearnedRouter) -> None:
    status, reply = server.ask("/v1/route", {"queries": QUERIES})
    assert status == 200
    for given, decision in zip(reply["decisions"], FallbackRouter(router).route_batch(QUERIES), strict=True):
        expected = json.loads(json.dumps(decision.as_dict()))
        assert given.pop("score") == pytest.approx(expected.pop("score"), abs=1e-6)
        assert given == expected


@pytest.mark.parametrize(
    ("option", "policy"), [({"threshold": 0.2}, Threshold(0.2)), ({"strong_share": 0.1}, StrongShare(0.1))]
)
def test_a_request_may_say_how_to_decide(
    server: Server, router: LearnedRouter, option: dict[str, float], policy: Threshold
) -> None:
    _, reply = server.ask("/v1/route", {"queries": QUERIES, **option})
    learned = [one for one in reply["decisions"] if one["source"] == "learned"]
    assert learned
    assert {one["threshold"] for one in learned} == {policy.threshold_of(router)}


def test_what_became_of_queries_is_taken_in(bundle: Path) -> None:
    escalations = [{"model": "sim-small", "escalated": number < 30, "use_case": "chat"} for number in range(100)]
    escalations[0].update(latency_s=2, cost_usd=0.5)
    outcomes = [{"score": 0.2, "strong_won": 1} for _ in range(300)]
    with Server(bundle) as server:
        assert server.ask("/v1/outcomes", {"outcomes": outcomes}) == (200, {"taken": 300, "unknown": 0})
        assert server.ask("/v1/outcomes", {"escalations": escalations}) == (200, {"taken": 100, "unknown": 0})
        status = server.ask("/v1/status")[1]
        metrics = server.ask("/metrics")[1]
    assert status["monitor"]["calibration"]["state"] == "drift"  # strong wins all, the score says a fifth
    assert status["escalation"]["overall"]["rate"] == pytest.approx(0.3)
    assert 'routelearn_escalations_total{model="sim-small",use_case="chat"} 30.0' in metrics
    assert 'routelearn_cost_usd_total{model="sim-small",use_case="chat"} 0.5' in metrics
    assert "routelearn_calibration_outcomes 300.0" in metrics


def test_logged_decisions_can_be_evaluated_off_policy(bundle: Path, tmp_path: Path) -> None:
    """Half of the decisions draw one of the four models; the outcome depends on the model alone."""
    path = tmp_path / "decisions.jsonl"
    with Server(bundle, "--explore", "0.5", "--decision-log", str(path)) as server:
        reply = server.ask("/v1/route", {"queries": ["Prove that the square root of 2 is irrational."] * 400})[1]
        worth = {"sim-max": 1.0, "sim-small": 0.25, "sim-large": 0.8, "sim-nano": 0.1}
        logged = [
            {"id": number, "outcome": worth[decision["model"]]}
            for number, decision in zip(reply["ids"], reply["decisions"], strict=True)
        ]
        assert server.ask("/v1/outcomes", {"logged": logged}) == (200, {"taken": 400, "unknown": 0})
    assert {round(decision["propensity"], 4) for decision in reply["decisions"]} == {0.125, 0.625}
    value = off_policy_value(read_log(path), lambda row: "sim-small")
    assert (value.rows, value.snips) == (400, 0.25)
    assert value.ips == pytest.approx(0.25, abs=0.1)


def test_shares_by_tier_and_use_case_decide(bundle: Path) -> None:
    options = ["--strong-share", "0", "--tier-share", "pro=1", "--use-case-share", "code=1"]
    with Server(bundle, *options) as server:
        for context, expected in (
            ({}, "sim-small"),
            ({"tier": "pro"}, "sim-max"),
            ({"use_case": "code", "tier": "free"}, "sim-max"),
            ({"use_case": "chat"}, "sim-small"),
        ):
            reply = server.ask("/v1/score", {"queries": QUERIES[:1], "context": context})[1]
            assert reply["models"] == [expected], context


@pytest.mark.parametrize(
    ("content", "param"),
    [
        ({"logged": [{"id": "x", "outcome": 1}]}, "logged"),
        ({"outcomes": [{"score": 0.5, "strong_won": 1}, {"score": 1.5, "strong_won": 1}]}, "outcomes[1].score"),
        ({"outcomes": [{"score": 0.5}]}, "outcomes[0].strong_won"),
        ({"escalations": [{"model": "sim-small", "escalated": "yes"}]}, "escalations[0].escalated"),
        ({"outcomes": [{"score": 0.5, "strong_won": 1}] * 1025}, "outcomes"),
        ({"nothing": []}, None),
    ],
)
def test_outcomes_that_cannot_be_are_refused_whole(server: Server, content: object, param: str | None) -> None:
    status, reply = server.ask("/v1/outcomes", content)
    assert (status, reply["error"].get("param")) == (422, param)
    assert "routelearn_calibration_outcomes 0.0" in server.ask("/metrics")[1]


def test_the_options_of_the_command_decide_where_a_request_says_nothing(bundle: Path) -> None:
    with Server(bundle, "--threshold", "0") as server:

        def learned(**options: float) -> set[str]:
            reply = server.ask("/v1/score", {"queries": QUERIES, **options})[1]
            return {m for m, source in zip(reply["models"], reply["sources"], strict=True) if source == "learned"}

        assert learned() == {"sim-max"}
        assert server.ask("/v1/router")[1]["threshold"] == 0
        assert learned(threshold=1.5) == {"sim-small"}


def test_the_context_reaches_the_rules(tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text(
        'bias = -1.0\n[rules.paying]\ntier = "pro"\nweight = 5.0\n[rules.any]\nmin_characters = 1\nweight = 0.5\n'
    )
    with Server("rules", "--strong", "S", "--weak", "W", "--rules", str(rules)) as server:
        assert server.ask("/healthz") == (200, {"status": "ok", "answers": "rules"})
        assert server.ask("/v1/score", {"queries": ["a"]})[1]["models"] == ["W"]
        assert server.ask("/v1/score", {"queries": ["a"], "context": {"tier": "pro"}})[1]["models"] == ["S"]
        assert server.ask("/v1/score", {"queries": ["a"]})[1]["bundle"] is None


def test_requests_at_once_get_their_own_answers(server: Server, sample: Sample, router: LearnedRouter) -> None:
    """Small ones are scored together with others', with other policies, and beside large ones; some are unusable."""
    texts = [query for query in sample.queries if isinstance(query, str)]

    def ask(number: int) -> None:
        some = texts[number : number + (1, 3, 300)[number % 3]]
        if number % 7 == 0:
            assert server.ask("/v1/score", {"queries": [number]})[0] == 422
            return
        status, reply = server.ask("/v1/route", {"queries": some, "threshold": number / 100})
        assert status == 200
        for decision, score in zip(reply["decisions"], router.score(some), strict=True):
            if decision["source"] == "learned":
                assert decision["threshold"] == number / 100
                assert decision["score"] == pytest.approx(float(score), abs=1e-5)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(ask, range(90)))


def test_the_router_is_described_with_the_digest_of_its_manifest(server: Server, bundle: Path) -> None:
    status, reply = server.ask("/v1/router")
    assert status == 200
    assert reply["bundle"] == hashlib.sha256((bundle / "router.json").read_bytes()).hexdigest()
    assert (reply["answers"], reply["strong"], reply["weak"]) == ("learned", "sim-max", "sim-small")
    assert reply["reload_error"] is None
    assert server.ask("/v1/score", {"queries": ["a"]})[1]["bundle"] == reply["bundle"]


def test_metrics_count_every_request_and_every_decision(bundle: Path) -> None:
    with Server(bundle) as server:
        for count in (1, 2, 3):
            server.ask("/v1/score", {"queries": ["Hello"] * count})
        server.ask("/v1/score", {"queries": []})
        server.ask("/nowhere/at/all")
        text = server.ask("/metrics")[1]
        decided = sum(float(n) for n in re.findall(r"^routelearn_decisions_total\{.*\} (\S+)$", text, re.MULTILINE))
        assert decided == 6
        assert 'routelearn_http_requests_total{path="/v1/score",status="200"} 3.0' in text
        assert 'routelearn_http_requests_total{path="/v1/score",status="422"} 1.0' in text
        assert 'routelearn_http_requests_total{path="other",status="404"} 1.0' in text
        assert "process_resident_memory_bytes" in text
        reply = server.ask("/v1/status")[1]
        assert reply["monitor"]["totals"]["requests"] == 6
        assert reply["requests"]["/v1/score"] == 4


@pytest.mark.parametrize(
    ("path", "content", "status", "kind", "param"),
    [
        ("/v1/score", b"", 400, "invalid_json", None),
        ("/v1/score", b"{", 400, "invalid_json", None),
        ("/v1/score", b'{"queries": ["\xff"]}', 400, "invalid_json", None),
        ("/v1/score", b'{"queries": ["\\ud800"]}', 400, "invalid_json", None),
        ("/v1/score", b"[" * 100_000, 400, "invalid_json", None),
        ("/v1/score", b'{"queries": ["a"], "threshold": 1e999}', 422, "invalid_request", "threshold"),
        ("/v1/score", b'{"queries": ["a"], "threshold": NaN}', 422, "invalid_request", "threshold"),
        ("/v1/score", {"queries": []}, 422, "invalid_request", "queries"),
        ("/v1/score", {"queries": ["a", 1]}, 422, "invalid_request", "queries[1]"),
        ("/v1/route", {"queries": ["a", [{"role": "user"}]]}, 422, "invalid_request", "queries[1]"),
        ("/v1/route", {"queries": ["a"], "treshold": 1}, 422, "invalid_request", None),
        ("/v1/route", {"queries": ["a"], "threshold": 0.5, "strong_share": 0.5}, 422, "invalid_request", None),
        ("/v1/route", {"queries": ["a"], "strong_share": 1.5}, 422, "invalid_request", "strong_share"),
        ("/v1/route", {"queries": ["a"], "context": {"tier": 1}}, 422, "invalid_request", "context.tier"),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong_and_where(
    server: Server, path: str, content: object, status: int, kind: str, param: str | None
) -> None:
    given, reply = server.ask(path, content)
    assert given == status
    assert set(reply) == {"error"}
    assert reply["error"]["type"] == kind
    assert reply["error"].get("param") == param
    assert reply["error"]["message"]


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        ("/v1/score", {"queries": []}, "queries is a list of 0 entries; expected 1 or more entries"),
        (
            "/v1/score",
            {"queries": ["a", 1]},
            "queries[1] is a number; expected a string, or a chat as a list of messages",
        ),
        (
            "/v1/route",
            {"queries": ["a"], "treshold": 1},
            "unknown field 'treshold'; expected queries, context, sessions, threshold, strong_share",
        ),
        (
            "/v1/route",
            {"queries": ["a"], "strong_share": 1.5},
            "strong_share is 1.5; expected a number of at most 1",
        ),
        ("/v1/route", {"queries": ["a"], "strong_share": 10**400}, "strong_share is a number; expected "),
        ("/v1/route", {"queries": ["a"], "context": {"tier": 1}}, "context.tier is 1; expected a string"),
        ("/v1/route", {"queries": [[{"role": "user"}]]}, "queries[0]: message 0 of a chat has no content; expected "),
        ("/v1/route", [], "the body is a list; expected an object"),
        (
            "/v1/outcomes",
            {"outcomes": [{"score": 1, "strong_won": 1, "won": 1}]},
            "unknown field 'won'; expected score, strong_won",
        ),
        ("/v1/outcomes", {"logged": [{"id": "x", "outcome": 1}] * 1025}, "logged has 1,025 entries; expected at most"),
    ],
)
def test_an_error_says_what_was_given_and_what_was_expected(
    server: Server, path: str, content: object, message: str
) -> None:
    status, reply = server.ask(path, content)
    assert status == 422
    assert reply["error"]["message"].startswith(message)


def test_unknown_paths_and_methods_are_errors_of_the_same_shape(server: Server) -> None:
    for path, method, status in (("/v1/nope", "GET", 404), ("/v1/score", "GET", 405), ("/healthz", "DELETE", 405)):
        given, reply = server.ask(path, method=method)
        assert (given, set(reply["error"])) == (status, {"type", "message"})
    assert server.call("/v1/score", method="GET")[1]["allow"] == "POST"
    assert server.call("/healthz", method="HEAD")[::2] == (200, b"")


def test_a_body_that_is_not_said_to_be_json_is_refused(server: Server) -> None:
    """A browser sends text/plain to any address without asking; JSON it does not."""
    head = b"POST /v1/score HTTP/1.1\r\nhost: x\r\ncontent-type: text/plain\r\ncontent-length: 17\r\n\r\n"
    assert b"HTTP/1.1 415" in server.send(head + b'{"queries":["a"]}')


def test_errors_quote_nothing_of_a_prompt(server: Server) -> None:
    secret = "my password is hunter2"
    for content in (
        {"queries": [secret, 1]},
        {"queries": [[{"content": secret}, {"content": 1}]]},
        {"queries": secret},
    ):
        status, _, body = server.call("/v1/score", content)
        assert status == 422
        assert b"hunter2" not in body
    assert "hunter2" not in "".join(server.log)


def test_only_who_has_the_token_gets_in(guarded: Server) -> None:
    for path in ("/v1/router", "/v1/status", "/metrics", "/v1/nope"):
        status, headers, _ = guarded.call(path)
        assert (status, headers["www-authenticate"]) == (401, "Bearer")
        assert guarded.call(path, token=TOKEN[:-1])[0] == 401
        assert guarded.call(path, token=TOKEN)[0] == (404 if path == "/v1/nope" else 200)
    assert guarded.ask("/v1/score", {"queries": ["a"]})[0] == 401
    assert guarded.ask("/v1/score", {"queries": ["a"]}, token=TOKEN)[0] == 200
    assert guarded.ask("/v1/score", {"queries": ["a"]}, token=ADMIN)[0] == 200
    assert guarded.call("/healthz")[0] == guarded.call("/")[0] == 200


def test_the_decision_log_has_each_decision_and_no_prompt(guarded: Server) -> None:
    path = Path(next(arg for arg in guarded.process.args if str(arg).endswith("decisions.jsonl")))  # type: ignore[union-attr,arg-type]
    before = sum(1 for _ in read_log(path)) if path.exists() else 0
    _, reply = guarded.ask("/v1/route", {"queries": ["a secret", "b"], "context": {"tier": "pro"}}, token=TOKEN)
    rows = list(read_log(path))[before:]
    assert [row["model"] for row in rows] == [one["model"] for one in reply["decisions"]]
    assert [row["context"] for row in rows] == [{"tier": "pro"}] * 2
    assert "a secret" not in path.read_text()


def test_what_is_too_large_is_refused_also_where_it_does_not_say_so(guarded: Server) -> None:
    status, reply = guarded.ask("/v1/score", {"queries": ["x" * 250] * 20}, token=TOKEN)
    assert (status, reply["error"]["type"]) == (413, "too_large")
    status, reply = guarded.ask("/v1/score", {"queries": ["x"] * 21}, token=TOKEN)
    assert (status, reply["error"]["param"]) == (422, "queries")
    chat = [{"content": "x" * 200}, {"content": "x" * 200}]
    status, reply = guarded.ask("/v1/score", {"queries": ["x", chat]}, token=TOKEN)
    assert (status, reply["error"]["param"]) == (422, "queries[1]")
    head = f"POST /v1/score HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\ncontent-type: application/json\r\n"
    chunked = head.encode() + b"transfer-encoding: chunked\r\n\r\n" + (b"400\r\n" + b"x" * 1024 + b"\r\n") * 8
    assert b"HTTP/1.1 413" in guarded.send(chunked)


def test_a_body_that_comes_too_slowly_is_given_up(guarded: Server) -> None:
    head = f"POST /v1/score HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\ncontent-type: application/json\r\n"
    reply = guarded.send(head.encode() + b"content-length: 100\r\n\r\n{")
    assert b"HTTP/1.1 408" in reply
    assert b"connection: close" in reply


def test_what_cannot_be_served_ends_with_code_2_and_a_line(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    for arguments, words in (
        (["nowhere"], "there is no such folder"),
        ([str(bundle), "--strong", "unheard-of"], "never seen"),
        ([str(bundle), "--host", "0.0.0.0"], "--insecure-no-token"),
        ([str(bundle), "--token-file", str(tmp_path / "empty")], "holds no token"),
        ([str(bundle), "--threshold", "0.5", "--strong-share", "0.5"], "one of them"),
        ([str(bundle), "--max-waiting", "0"], "max_waiting"),
        ([str(bundle), "--guaranteed"], "no guaranteed threshold"),
    ):
        done = run("serve", *arguments, "--port", "0")
        assert (done.returncode, words in done.stderr) == (2, True), done.stderr
        assert "Traceback" not in done.stderr


def test_without_a_bundle_rules_answer_only_when_asked_for(tmp_path: Path) -> None:
    options = ("--fallback", "--no-general", "--strong", "S", "--weak", "W", "--strong-share", "0.3")
    with Server(tmp_path / "none", *options) as server:
        assert server.ask("/healthz")[1]["answers"] == "rules"
        assert "no such folder" in server.ask("/v1/router")[1]["unavailable"]
        assert server.ask("/v1/route", {"queries": ["Hello"]})[1]["decisions"][0]["cause"] == "load-failed"


def test_requests_in_flight_finish_when_the_service_is_ended(bundle: Path) -> None:
    """Requests whose body is still on its way when SIGTERM comes are answered; then the process ends with 0."""
    import socket

    body = json.dumps({"queries": QUERIES}).encode()
    head = b"POST /v1/score HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    with Server(bundle) as server:
        clients = [socket.create_connection(("127.0.0.1", server.port), 20) for _ in range(5)]
        for client in clients:
            client.sendall(head % len(body) + body[:10])
        wait_for(lambda: "routelearn_http_waiting 5.0" in server.ask("/metrics")[1])
        server.process.send_signal(signal.SIGTERM)

        def refuses() -> bool:
            try:
                socket.create_connection(("127.0.0.1", server.port), 1).close()
            except OSError:
                return True
            return False

        wait_for(refuses)
        for client in clients:
            client.sendall(body[10:])
            answer = b""
            while chunk := client.recv(65536):
                answer += chunk
            assert answer.startswith(b"HTTP/1.1 200")
            client.close()
        assert server.process.wait(20) == 0


def test_after_the_time_for_a_shutdown_those_in_flight_are_told(bundle: Path) -> None:
    import socket

    with Server(bundle, "--shutdown-timeout", "1") as server:
        client = socket.create_connection(("127.0.0.1", server.port), 20)
        client.sendall(
            b"POST /v1/score HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n"
        )
        wait_for(lambda: "routelearn_http_waiting 1.0" in server.ask("/metrics")[1])
        server.process.send_signal(signal.SIGTERM)
        assert client.recv(65536).startswith(b"HTTP/1.1 503")
        assert server.process.wait(20) == 0


def test_openapi_names_the_limits_and_the_errors(guarded: Server) -> None:
    reply = guarded.ask("/openapi.json", token=TOKEN)[1]
    queries = reply["components"]["schemas"]["ScoringRequest"]["properties"]["queries"]
    assert (queries["maxItems"], queries["items"]["anyOf"][0]["maxLength"]) == (20, 300)
    for path in ("/v1/score", "/v1/route"):
        operation = reply["paths"][path]["post"]
        assert {"200", "400", "401", "413", "422", "429", "503"} <= set(operation["responses"])
        assert operation["security"] == [{"token": []}]
    assert "security" not in reply["paths"]["/healthz"]["get"]
