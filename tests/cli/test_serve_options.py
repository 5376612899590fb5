"""`routelearn serve` hands its options to the parts that they are for."""

from __future__ import annotations

import pytest

from routelearn.cli.serve import SessionOptions
from routelearn.monitoring.served_call import ServedCall
from routelearn.routers.decision import Model
from routelearn.routers.rules import RulesRouter


@pytest.mark.parametrize(("cache_ttl", "warm"), [(300.0, 0.0), (1000.0, 1.0)])
def test_savings_expect_a_cache_to_hold_for_the_cache_ttl(
    cache_ttl: float, warm: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    router = RulesRouter("strong", "weak")
    pool = [Model("strong", 1.0, 0.0, cached_input_price=0.0), Model("weak", 1.0, 0.0, cached_input_price=0.0)]
    monkeypatch.setattr("routelearn.cli.serve.read_pool", lambda _: pool)
    savings = SessionOptions(cache_ttl=cache_ttl).savings(router, 0.0)
    for number, model in enumerate(("strong", "weak")):
        savings.add(
            ServedCall(
                model=model, strong="strong", session="s", input_tokens=1024_000, output_tokens=0, time=600.0 * number
            )
        )
    # What the session's change of its model took from a cache that is still warm.
    assert savings.report().cache_penalty_usd == pytest.approx(1.024 * warm)
