"""A job of paid calls against services that fail, killed again and again: nothing is lost, nothing is paid twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.collecting import CONCURRENCY, PRICES, collect_with_kills
from helpers.flaky_models import FlakyModels


@pytest.mark.slow
def test_a_job_that_is_killed_again_and_again_has_every_answer_once_and_pays_only_calls_in_flight_twice(
    tmp_path: Path,
) -> None:
    faults = {"full": 0.2, "broken": 0.05, "cut": 0.02, "hung": 0.01}
    with FlakyModels(answer=lambda prompt: f"Answer to {prompt}" * (len(prompt) % 5 + 1), **faults) as server:
        found = collect_with_kills(tmp_path, server, prompts=150, kills=6)
        assert set(server.faults) == set(faults)
        assert set(server.answered) == {(model, prompt) for model, prompt in server.answered if model in PRICES}
    assert found.rows == 450
    assert 0 <= found.answered - found.rows <= found.kills * CONCURRENCY * len(PRICES)
    assert found.usd == pytest.approx(found.bill, abs=1e-9)
    assert "calls failed and were tried again" in found.messages
