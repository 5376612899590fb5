"""Records of explored decisions have the weight 1 / propensity, so that means of models are those of all queries."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from helpers.request_logs import call, decide, log_of

from routelearn import Router
from routelearn.data import LogOptions, PerformanceRecord, read_records, read_request_logs, write_records
from routelearn.monitoring import DecisionLog, off_policy_value, read_log
from routelearn.policies import Explore
from routelearn.routers.errors import DataError
from routelearn.service import Gateway


def explored(path: Path, requests: int, seed: int) -> None:
    """Traffic whose harder half goes to big more often; small is wrong on it more often."""
    random, log = np.random.default_rng(seed), DecisionLog(path, keep_prompts=True, flush_every=10_000)
    for number in range(requests):
        hard = number % 2
        odds = 0.9 if hard else 0.2
        big = random.random() < odds
        name = decide(
            log, f"{'hard' if hard else 'easy'} {number}", "big" if big else "small", odds if big else 1 - odds
        )
        right = random.random() < (0.9 if big else 0.9 - 0.6 * hard)
        log.write_outcome(name, float(right))
    log.close()


def mean(records: list[PerformanceRecord], model: str, *, weighted: bool = True) -> float:
    own = [one for one in records if one.model == model]
    return float(np.average([one.score for one in own], weights=[one.weight if weighted else 1.0 for one in own]))


def test_weights_by_propensities_recover_the_true_means(tmp_path: Path) -> None:
    weighted, unweighted, totals = [], [], []
    for seed in range(40):
        path = tmp_path / f"{seed}.jsonl"
        explored(path, 500, seed)
        records = read_request_logs([path]).records
        assert len(records) == 500
        weighted.append([mean(records, model) for model in ("big", "small")])
        unweighted.append([mean(records, model, weighted=False) for model in ("big", "small")])
        totals.append([sum(one.weight for one in records if one.model == model) for model in ("big", "small")])
    error = np.std(weighted, axis=0) / np.sqrt(len(weighted))
    assert np.all(np.abs(np.mean(weighted, axis=0) - [0.9, 0.6]) < 4 * error + 0.005)
    assert np.mean(unweighted, axis=0)[1] > 0.75  # small looks good, because it got the easy half
    assert np.mean(totals, axis=0) == pytest.approx([500, 500], rel=0.05)


def test_the_records_estimate_what_off_policy_value_does(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    explored(path, 300, 1)
    records = read_request_logs([path]).records
    for model in ("big", "small"):
        assert mean(records, model) == pytest.approx(
            off_policy_value(read_log(path), lambda _, model=model: model).snips
        )


def test_weights_are_capped_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    log = DecisionLog(path, keep_prompts=True)
    for number, propensity in enumerate((1.0, 0.5, 0.1, 0.001)):
        log.write_outcome(decide(log, f"q{number}", "big", propensity), 1.0)
    log.close()
    found = read_request_logs([path])
    assert [one.weight for one in found.records] == [1, 2, 10, 100]
    assert (found.counts.explored, found.counts.capped) == (3, 1)
    found = read_request_logs([path], LogOptions(most_weight=5))
    assert [one.weight for one in found.records] == [1, 2, 5, 5]
    assert found.counts.capped == 2
    write_records(found.records, tmp_path / "records.parquet")
    read = read_records(tmp_path / "records.parquet").records
    assert [(one.query, one.weight) for one in read] == [("q0", 1), ("q1", 2), ("q2", 5), ("q3", 5)]


def test_the_decisions_of_a_router_that_explores(tmp_path: Path, router: Router) -> None:
    path, queries = tmp_path / "decisions.jsonl", [f"Question {number}?" for number in range(60)]
    decisions = router.route_batch(queries, Explore(None, 0.5, seed=0))
    log = DecisionLog(path, keep_prompts=True)
    for query, decision in zip(queries, decisions, strict=True):
        log.write_outcome(log.write(query, decision), 1.0)
    log.close()
    records = read_request_logs([path]).records
    assert [(one.query, one.model, one.weight) for one in records] == [
        (query, decision.model, pytest.approx(1 / decision.propensity))
        for query, decision in zip(queries, decisions, strict=True)
    ]
    assert len({one.weight for one in records}) == 2


def test_explored_decisions_are_never_folded_as_retries(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    log = DecisionLog(path, keep_prompts=True, clock=lambda: 1000.0)
    for propensity in (0.5, 0.5, 1.0, 1.0):
        log.write_outcome(decide(log, "again", "big", propensity), 1.0)
    log.close()
    found = read_request_logs([path])
    assert [one.weight for one in found.records] == [2, 2, 1]
    assert found.counts.retries == 1


def test_a_decision_and_the_log_of_its_call_are_one_request(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    log = DecisionLog(path)
    for name, model in (("a", "m"), ("b", "n"), ("c", "m")):
        decide(log, "Hi", model, 0.25, id=name)
        log.write_outcome(name, 1.0)
    log.close()
    calls = log_of(tmp_path, call("Hi", id="a", cost=0.5), call("Hi", id="b"), call("Hi", id="c", status_code=503))
    found = read_request_logs([path, calls])
    assert [(one.query, one.model, one.score, one.weight, one.response, one.cost_usd) for one in found.records] == [
        ("Hi", "m", 1.0, 4.0, "Yes", 0.5)
    ]
    assert (found.counts.other_model, found.another, found.counts.failed) == (1, ("b", "n", "m"), 1)
    renamed = read_request_logs([path, calls], LogOptions(aliases={"m": "n"}))
    assert len(renamed.records) == 2


def test_other_logs_may_hold_the_propensity_too(tmp_path: Path, router: Router) -> None:
    gateway = Gateway(router, policy=Explore(None, 1.0, seed=0))
    selection = asyncio.run(gateway.select("Hi")).as_dict()  # what the LiteLLM hook puts into the metadata of a request
    gateway.close()
    log = log_of(
        tmp_path,
        call("Hi", selection["model"], score=1, metadata={"routelearn": selection}),
        call("Ho", propensity=0.5, score=1),
        call("He", metadata={"propensity": 0.25}, score=1),
    )
    found = read_request_logs([log])
    assert [one.weight for one in found.records] == [len(router.models), 2, 4]
    assert found.counts.explored == 3


@pytest.mark.parametrize("propensity", [0, -1, 1.5, "often", None])
def test_a_propensity_that_is_none_is_refused(tmp_path: Path, propensity: object) -> None:
    row = {"id": "a", "query_hash": "h", "query": "Hi", "model": "m", "propensity": propensity}
    log = log_of(tmp_path, row, {"id": "a", "outcome": 1.0})
    with pytest.raises(DataError, match=r"row 1, column 'propensity'.*expected a probability above 0, and at most 1"):
        read_request_logs([log])
