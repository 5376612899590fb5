"""What a job of paid calls does about budgets, pauses, and services that are wrong."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from helpers.flaky_models import FlakyModels

from routelearn.cascade.accounts import Budget
from routelearn.labelling import Candidate, Journal, Prompt, collect_answers
from routelearn.labelling.retries import LONGEST_PAUSE_S, fault_in, wait_before
from routelearn.routers.errors import InputError


def _model(url: str, **more: object) -> Candidate:
    return Candidate(name="m", base_url=url, api_key_env="", input_price=1.0, output_price=10.0, **more)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_budget_holds_where_answers_are_much_longer_than_assumed(tmp_path: Path) -> None:
    prompts = [Prompt(query=f"Write a book about {number}.") for number in range(60)]
    with FlakyModels(answer=lambda _: "word " * 8000, delay_s=0.05) as server:
        done = collect_answers(prompts, [_model(server.url, concurrency=50)], tmp_path / "a.jsonl", max_usd=0.55)
        price = done.answers[0].cost_usd or 0.0
        assert 0.09 < price < 0.11
        assert server.counts.calls == len(done.answers) <= 6
    assert done.outcome.stopped is not None
    assert done.outcome.spent_usd <= 0.55 + price


@pytest.mark.slow
def test_an_answer_whose_tokens_are_said_to_be_none_is_estimated(tmp_path: Path) -> None:
    class Odd(FlakyModels):
        def tokens(self, model: str, prompt: str, text: str) -> dict[str, object]:
            return {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}

    with Odd(answer=lambda _: "word " * 100) as server:
        done = collect_answers([Prompt(query="Hi")], [_model(server.url)], tmp_path / "a.jsonl")
    (answer,) = done.answers
    assert answer.reply is not None and answer.reply.estimated and (answer.cost_usd or 0) > 0


class _FullError(Exception):
    def __init__(self, status: int, **headers: str) -> None:
        super().__init__("full")
        self.status_code = status
        self.response = type(
            "Response", (), {"headers": {name.replace("_", "-"): value for name, value in headers.items()}}
        )


@pytest.mark.parametrize(
    ("headers", "pause"),
    [
        ({}, 0.0),
        ({"retry_after": "7"}, 7.0),
        ({"retry_after": "0.5"}, 0.5),
        ({"retry_after_ms": "250", "retry_after": "7"}, 0.25),
        ({"retry_after": "-3"}, 0.0),
        ({"retry_after": "nan"}, 0.0),
        ({"retry_after": "soon"}, 0.0),
        ({"retry_after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
    ],
)
def test_the_pause_that_a_service_asks_for(headers: dict[str, str], pause: float) -> None:
    fault = fault_in(_FullError(429, **headers))
    assert (fault.kind, fault.pause_s) == ("service", pause)
    waited = wait_before(1, fault, random.Random(0))
    assert waited >= pause and waited > 0


def test_a_pause_of_a_day_ends_the_job_and_says_so() -> None:
    fault = fault_in(_FullError(429, retry_after=str(LONGEST_PAUSE_S * 100)))
    assert fault.kind == "setup" and "asks to wait 1500 minutes" in str(fault)


@pytest.mark.parametrize(
    ("status", "kind"), [(400, "question"), (401, "setup"), (404, "setup"), (422, "question"), (503, "service")]
)
def test_what_a_status_means(status: int, kind: str) -> None:
    assert fault_in(_FullError(status)).kind == kind


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"base_url": "localhost:8765/v1"}, "begins with http"),
        ({"base_url": "not a url"}, "begins with http"),
        ({"parameters": {"stop": {1, 2}}}, "cannot be sent"),
        ({"parameters": {"temperature": float("nan")}}, "cannot be sent"),
    ],
)
def test_what_no_client_could_send_is_refused_at_once(more: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Candidate(name="m", **more)  # type: ignore[arg-type]


def test_the_journal_counts_what_was_paid_for_an_output(tmp_path: Path) -> None:
    with Journal(tmp_path / "x.journal", "collect") as journal:
        journal.add("k", {"candidate": "m", "cost_usd": 0.25})
    lines = [json.loads(line) for line in (tmp_path / "x.journal").read_text().splitlines()]
    assert sum(line.get("cost_usd", 0) for line in lines) == 0.25
    assert Budget(0.2).reserve(0.25) is None
