"""Prompt caches hold for a time: the seconds are refused where they are none."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from routelearn.monitoring.savings import Savings
from routelearn.monitoring.shadow import shadow_report
from routelearn.policies.prompt_cache import PromptCache
from routelearn.policies.switch_price import SwitchPrices
from routelearn.routers.decision import Model
from routelearn.routers.errors import InputError

POOL = [Model("strong", 3.0, 15.0), Model("weak", 0.3, 1.5)]
USES: list[Callable[[float], object]] = [
    PromptCache,
    lambda seconds: SwitchPrices(models=POOL, cache_ttl_s=seconds),
    lambda seconds: Savings(POOL, cache_ttl_s=seconds),
    lambda seconds: shadow_report([], POOL, cache_ttl_s=seconds),
]


@pytest.mark.parametrize("seconds", [None, 0, -3.0, math.nan, "300"])
@pytest.mark.parametrize("use", USES)
def test_seconds_of_a_cache_that_are_none_are_refused_before_the_first_request(
    use: Callable[[object], object], seconds: object
) -> None:
    with pytest.raises(InputError, match=r"ttl_s is .*; expected seconds above 0$"):
        use(seconds)
