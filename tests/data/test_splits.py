from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routelearn.data.readers import read_records
from routelearn.data.records import PerformanceRecord, PreferenceRecord, record_key
from routelearn.data.sample import POOL, generate_sample, write_sample
from routelearn.data.splits import check_leaks, deduplicate, find_leaks, split_by_prompt, without_leaks
from routelearn.routers.errors import InputError, LeakError

LONG = (
    "A train leaves the station at nine and travels for three hours at eighty kilometres an hour; how far does it go?"
)


def records(*prompts: str) -> list[PerformanceRecord]:
    return [PerformanceRecord(prompt, "x", 1.0) for prompt in prompts]


@given(st.lists(st.text(max_size=5), min_size=1, max_size=60), st.integers(0, 3))
def test_a_prompt_never_stands_in_two_parts(prompts: list[str], seed: int) -> None:
    parts = split_by_prompt(records(*prompts), (0.5, 0.3, 0.2), seed)
    keys = [{record_key(record) for record in part} for part in parts]
    assert not (keys[0] & keys[1] or keys[0] & keys[2] or keys[1] & keys[2])
    assert sum(map(len, parts)) == len(prompts)


def test_a_split_depends_on_the_seed_and_not_on_the_order() -> None:
    some = records(*(f"q{i}" for i in range(100)))
    one, other = split_by_prompt(some, (0.8, 0.2), 1), split_by_prompt(some[::-1], (0.8, 0.2), 1)
    assert sorted(r.query for r in one[1]) == sorted(r.query for r in other[1])  # type: ignore[type-var]
    assert len(one[0]) == 80
    assert one[1] != split_by_prompt(some, (0.8, 0.2), 2)[1]


def test_fractions_must_sum_to_one() -> None:
    with pytest.raises(InputError, match="sum to 1"):
        split_by_prompt(records("a"), (0.5, 0.6))


def test_duplicates_are_dropped_and_differing_labels_kept() -> None:
    some = [
        *records("Why?", " why? ", "How?"),
        PerformanceRecord("Why?", "x", 0.0),
        PreferenceRecord("Why?", "x", "y", 1),
    ]
    kept, dropped = deduplicate(some)
    assert (len(kept), dropped) == (4, 1)


@pytest.mark.parametrize(
    "copy", [LONG, LONG.upper() + "  ", LONG.replace("how far does it go?", "how far does it get?")]
)
def test_copies_and_near_copies_are_leaks(copy: str) -> None:
    assert len(find_leaks(records(LONG), records(copy, "something else"))) == 1
    with pytest.raises(LeakError, match="1 evaluation prompts"):
        check_leaks(records(LONG), records(copy))


def test_other_prompts_are_no_leaks() -> None:
    check_leaks(records(LONG), records("A train leaves the station at nine; is it late?", "Why?"))


def test_one_benchmark_inside_another_is_caught(real_data: Path) -> None:
    training = read_records(real_data / "zeroeval" / "gsm8k_wide.parquet").records
    evaluation = read_records(real_data / "routellm_eval" / "gsm8k.parquet").records
    with pytest.raises(LeakError, match="1319 evaluation prompts"):
        check_leaks(training, evaluation)


def test_one_seed_gives_one_sample(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_sample(tmp_path / name, 150, seed=4)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    assert "SYNTHETIC" in (tmp_path / "a" / "README.txt").read_text()


def test_the_sample_is_what_it_says() -> None:
    sample = generate_sample(600, seed=1)
    assert len(sample.queries) == 600
    assert len(sample.performances) == 600 * len(POOL)
    assert any(not isinstance(query, str) for query in sample.queries)
    assert {record.preference for record in sample.preferences} == {0.0, 0.5, 1.0}
    means = sample.expected_quality.mean(axis=0)
    assert list(means) == sorted(means)  # the pool is in order of skill, and of price
    assert all(record.cost_usd and record.response for record in sample.performances)
    check_leaks(
        [record for record in sample.performances if record.split != "test"],
        [record for record in sample.performances if record.split == "test"],
    )


def test_leaked_records_are_left_out_or_refused() -> None:
    records = [
        PerformanceRecord(text, "a", 1.0) for text in ("What is 2 plus 2?", "Name a city.", "what is 2  plus 2?")
    ]
    training = records[:1]
    assert without_leaks(records, training, drop=True) == ([records[1]], 1)
    assert without_leaks(records[1:2], training, drop=False) == ([records[1]], 0)
    with pytest.raises(LeakError, match="expected none"):
        without_leaks(records, training, drop=False)
