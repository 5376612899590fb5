"""`routelearn serve` hands its options to the parts that they are for, and `routelearn proxy` reads its file."""

from __future__ import annotations

from pathlib import Path

import pytest

from routelearn.cli.proxy import _has_master_key
from routelearn.cli.serve import SessionOptions
from routelearn.monitoring.served_call import ServedCall
from routelearn.routers.decision import Model
from routelearn.routers.errors import InputError
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


def test_a_proxy_configuration_that_is_no_text_is_refused_by_its_name(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"config\.yaml is no YAML"):
        _has_master_key(config)
