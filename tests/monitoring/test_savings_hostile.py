"""Savings from calls, logs and prices that hold what no provider says: the error names it, and the sums stay finite."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import pytest

from routelearn.monitoring.log_calls import logged_calls
from routelearn.monitoring.log_rows import read_log
from routelearn.monitoring.savings import Savings
from routelearn.monitoring.served_call import MOST, ServedCall
from routelearn.monitoring.shadow import shadow_report
from routelearn.policies.cost import MOST_PRICE, check_prices
from routelearn.policies.switch_price import SwitchPrices
from routelearn.routers.decision import Model
from routelearn.routers.errors import InputError

POOL = [Model("strong", 10.0, 30.0, cached_input_price=1.0), Model("weak", 1.0, 3.0, cached_input_price=0.1)]
USAGE: dict[str, Any] = {"model": "weak", "strong": "strong", "input_tokens": 1000, "output_tokens": 100, "time": 0.0}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[(name, value) for name in ("input_tokens", "output_tokens") for value in (-1, 10**400, 1.5, "9", None)],
        *[("cost_usd", value) for value in (-1.0, math.nan, math.inf, 1e300, 10**400, "1")],
        *[("session", value) for value in (["a"], {"id": "a"}, 7)],
        *[("further", value) for value in ("no", 1)],
        *[("time", value) for value in (math.inf, 10**400, "now")],
        *[("propensity", value) for value in (0, -0.5, 1.5, math.nan, "x")],
    ],
    ids=lambda value: f"{value!r:.12}",
)
def test_a_field_of_a_logged_call_that_cannot_be_is_refused_with_its_name_and_its_row(field: str, value: Any) -> None:
    row = {"id": "request 7", "shadow": True, "model": "weak", "served": "strong", "usage": [{**USAGE, field: value}]}
    with pytest.raises(InputError, match=rf"request 7: {field} is"):
        logged_calls([row])
    with pytest.raises(InputError, match=rf"request 7: {field} is"):
        shadow_report([row], POOL)


@pytest.mark.parametrize("usage", [3, "text", None, [USAGE]])
def test_usage_that_is_no_mapping_is_refused_with_its_row(usage: Any) -> None:
    with pytest.raises(InputError, match="request 7"):
        logged_calls([{"id": "request 7", "usage": [usage]}])


@pytest.mark.parametrize("field", ["input_price", "output_price", "cached_input_price"])
@pytest.mark.parametrize("price", [-1.0, math.nan, math.inf, 1e300, 10**400], ids=lambda value: f"{value!r:.12}")
def test_prices_that_cannot_be_are_refused_wherever_they_are_used(field: str, price: float) -> None:
    models = [Model("strong", **{"input_price": 3.0, "output_price": 15.0, field: price}), POOL[1]]  # type: ignore[arg-type]
    for use in (check_prices, Savings, lambda pool: SwitchPrices(models=pool), lambda pool: shadow_report([], pool)):
        with pytest.raises(InputError, match=f"'strong' .*{field}"):
            use(models)  # type: ignore[operator]


def test_the_largest_calls_at_the_highest_prices_have_finite_sums() -> None:
    savings = Savings([Model(name, MOST_PRICE, MOST_PRICE) for name in ("strong", "weak")])
    for model in ("strong", "weak"):
        savings.add(
            ServedCall(model=model, strong="strong", input_tokens=MOST, output_tokens=MOST, time=0.0, session="s")
        )
    report = savings.report()
    assert all(math.isfinite(value) for value in (report.spent_usd, report.always_strong_usd, report.saved_usd))
    json.dumps(report.as_dict(), allow_nan=False)


def test_draws_of_a_tiny_probability_do_not_fail_the_report() -> None:
    savings = Savings(POOL)
    for number in range(80):
        model = "strong" if number % 2 else "weak"
        propensity = 1e-200 if model == "strong" else 0.9
        savings.add(ServedCall(**{**USAGE, "model": model, "output_tokens": 100 + number, "propensity": propensity}))
    json.dumps(savings.report().as_dict(), allow_nan=False)


def test_names_that_callers_make_up_push_no_model_of_the_pool_out_of_the_report() -> None:
    savings = Savings(POOL)
    for number in range(500):
        savings.add(ServedCall(**{**USAGE, "model": f"made up {number}"}))
    for model in ("strong", "weak"):
        savings.add(ServedCall(**{**USAGE, "model": model}))
    by_model = savings.report().by_model
    assert by_model["strong"].requests == by_model["weak"].requests == 1
    assert len(by_model) < 210


def test_a_log_with_broken_lines_of_usage_is_read_without_them(tmp_path: Path) -> None:

    lines = [
        '{"id": "1", "model": "weak", "score": 0.2}',
        json.dumps({"id": "1", "usage": USAGE}),
        '{"id": "1", "usage": {"model": "we',
        '{"id": "1", "usage": [1]}',
        '{"id": ["1"], "usage": {}}',
        "null",
    ]
    (tmp_path / "log.jsonl").write_text("\n".join(lines))
    assert [call.model for call in logged_calls(read_log(tmp_path / "log.jsonl"))] == ["weak"]


@pytest.mark.parametrize("kept", [0, 30, -8])
def test_a_broken_compressed_file_of_a_log_is_named_and_the_other_files_are_read(
    tmp_path: Path, kept: int, caplog: pytest.LogCaptureFixture
) -> None:
    row, usage = {"id": "1", "model": "weak", "score": 0.2}, {"id": "1", "usage": USAGE}
    (tmp_path / "log.jsonl").write_text(f"{'[' * 100_000}\n{json.dumps(row)}\n{json.dumps(usage)}\n")
    packed = gzip.compress("".join(json.dumps({**row, "id": f"old {n}"}) + "\n" for n in range(999)).encode())
    (tmp_path / "log.jsonl.1.gz").write_bytes(packed[:kept] if kept else b"no gzip at all")
    assert [call.model for call in logged_calls(read_log(tmp_path / "log.jsonl"))] == ["weak"]
    assert "log.jsonl.1.gz is broken" in caplog.text
    assert "1 broken lines" in caplog.text
