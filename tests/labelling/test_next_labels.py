"""Which prompts are judged next: spread, weights, budgets, labels that are there, and the command."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from helpers.cli import run

import routelearn
from routelearn.data.records import PerformanceRecord, Record, record_key
from routelearn.data.writers import write_records
from routelearn.labelling.candidates import Candidate
from routelearn.labelling.learning_curve import pair_of_labels
from routelearn.labelling.next_labels import choose_prompts, spread_order, write_prompts
from routelearn.labelling.prompts import Prompt, read_prompts
from routelearn.labelling.usefulness import usefulness_of
from routelearn.routers.errors import InputError
from routelearn.routers.query import prompt_key

if TYPE_CHECKING:
    from routelearn.data.sample import Sample

CANDIDATES = (
    Candidate(name="large", input_price=2.0, output_price=8.0),
    Candidate(name="small", input_price=0.1, output_price=0.4, expected_output_tokens=100),
)


@pytest.fixture(scope="module")
def prompts(sample: Sample) -> list[Prompt]:
    found = [Prompt(query=record.query, task=record.task) for record in sample.performances]
    return list({prompt.id: prompt for prompt in found}.values())


def test_without_a_router_all_prompts_have_the_same_chance(prompts: list[Prompt]) -> None:
    chosen = choose_prompts(prompts, 120)
    assert len(chosen.prompts) == len({prompt.id for prompt in chosen.prompts}) == 120
    assert np.allclose(chosen.probability, 120 / len(prompts))
    assert {prompt.weight for prompt in chosen.prompts} == {1.0}
    assert chosen.eligible == len(prompts)


def test_the_choice_is_spread_over_the_clusters(prompts: list[Prompt]) -> None:
    order, clusters = spread_order([prompt.query for prompt in prompts], 0)
    assert sorted(order.tolist()) == list(range(len(prompts)))
    assert clusters > 10
    place = {prompts[row].id: number for number, row in enumerate(order.tolist())}
    places = sorted(place[prompt.id] for prompt in choose_prompts(prompts, 100).prompts)
    step = len(prompts) / 100
    assert np.diff(places).max() <= np.ceil(step)
    assert np.diff(places).min() >= np.floor(step)


def test_the_same_seed_chooses_the_same_prompts_and_another_one_others(prompts: list[Prompt]) -> None:
    first, second, third = (choose_prompts(prompts, 50, seed=seed).prompts for seed in (1, 1, 2))
    assert first == second
    assert first != third


def test_with_a_router_useful_prompts_are_chosen_more_often(prompts: list[Prompt], router: routelearn.Router) -> None:
    useful = usefulness_of(router, [prompt.query for prompt in prompts])
    of_prompt = dict(zip((prompt.id for prompt in prompts), useful, strict=True))
    chosen = choose_prompts(prompts, 200, router=router)
    assert useful.min() > 0
    assert np.mean([of_prompt[prompt.id] for prompt in chosen.prompts]) > useful.mean()
    weights = np.array([prompt.weight for prompt in chosen.prompts])
    assert weights.mean() == pytest.approx(1)
    assert np.allclose(weights * chosen.probability, weights[0] * chosen.probability[0], rtol=1e-6)


def test_the_floor_bounds_the_weights(prompts: list[Prompt], router: routelearn.Router) -> None:
    spread = {
        floor: np.ptp([prompt.weight for prompt in choose_prompts(prompts, 200, router=router, floor=floor).prompts])
        for floor in (0.1, 0.5, 1.0)
    }
    assert spread[0.1] > spread[0.5] > spread[1.0] == 0


def test_weighted_scores_of_chosen_prompts_are_those_of_all(prompts: list[Prompt], router: routelearn.Router) -> None:
    scores = dict(zip((p.id for p in prompts), router.score([p.query for p in prompts]).tolist(), strict=True))
    threshold = router.threshold
    true, found = np.mean([one >= threshold for one in scores.values()]), []
    for seed in range(10):
        chosen = choose_prompts(prompts, 60, router=router, floor=0.2, seed=seed).prompts
        to_strong = np.array([scores[prompt.id] >= threshold for prompt in chosen])
        found.append(np.average(to_strong, weights=[prompt.weight for prompt in chosen]))
    assert abs(np.mean(found) - true) < 3 * np.std(found) / np.sqrt(10) + 0.01


def test_prompts_with_a_label_are_left_out(prompts: list[Prompt]) -> None:
    labels = [PerformanceRecord(prompt.query, "large", 1.0) for prompt in prompts[:700]]
    chosen = choose_prompts(prompts, 100, labels=labels)
    assert not {prompt.id for prompt in chosen.prompts} & {prompt.id for prompt in prompts[:700]}
    assert (chosen.labelled, chosen.eligible) == (700, len(prompts) - 700)
    with pytest.raises(InputError, match="has a label; expected some without one"):
        choose_prompts(prompts[:700], 100, labels=labels)


def test_traffic_is_counted_and_weights_undo_what_cannot_be_chosen_twice(prompts: list[Prompt]) -> None:
    busy = [replace(prompts[0], weight=1000.0), *prompts[1:101]]
    chosen = choose_prompts(busy, 10)
    assert chosen.prompts[0].query == prompts[0].query
    assert chosen.prompts[0].weight > 50 * chosen.prompts[1].weight
    even = [replace(prompt, weight=2.0 if number % 2 else 1.0) for number, prompt in enumerate(prompts[:1000])]
    often = choose_prompts(even, 300)
    assert {prompt.weight for prompt in often.prompts} == {1.0}
    assert sorted(set(often.probability.round(9).tolist())) == [0.2, 0.4]


def test_twenty_prompts(prompts: list[Prompt], router: routelearn.Router) -> None:
    assert len(choose_prompts(prompts[:20], 5, router=router).prompts) == 5
    assert len(choose_prompts(prompts[:20], 50, router=router).prompts) == 20


def test_all_the_same_prompt() -> None:
    chosen = choose_prompts([Prompt(query="Hello!", weight=20.0)], 5)
    assert [(prompt.query, prompt.weight) for prompt in chosen.prompts] == [("Hello!", 1.0)]


def test_chats_and_empty_prompts() -> None:
    chats = [
        Prompt(query=({"role": "system", "content": "Be brief."}, {"role": "user", "content": f"Who was king {n}?"}))
        for n in range(30)
    ]
    chosen = choose_prompts([*chats, Prompt(query="")], 20)
    assert len(chosen.prompts) == 20


def test_a_budget_pays_for_what_is_chosen(prompts: list[Prompt]) -> None:
    for budget in (0.05, 0.2):
        chosen = choose_prompts(prompts, budget_usd=budget, candidates=CANDIDATES)
        assert chosen.usd is not None
        assert 0.9 * budget < chosen.usd <= budget
    assert len(choose_prompts(prompts, 3, budget_usd=0.05, candidates=CANDIDATES).prompts) == 3


def test_a_budget_that_pays_for_nothing_is_refused(prompts: list[Prompt]) -> None:
    with pytest.raises(InputError, match="expected a budget above that"):
        choose_prompts(prompts, budget_usd=1e-6, candidates=CANDIDATES)
    with pytest.raises(InputError, match="no price of 'free'"):
        choose_prompts(prompts, budget_usd=1.0, candidates=[Candidate(name="free")])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "neither a count nor a budget"),
        ({"count": 0}, "count is 0; expected a whole number"),
        ({"count": 2, "floor": 0.0}, "floor is 0.0"),
        ({"count": 2, "floor": 1.5}, "floor is 1.5"),
        ({"budget_usd": -1.0}, "budget_usd is -1.0"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        choose_prompts([Prompt(query="a"), Prompt(query="b")], **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet", "csv"])
def test_what_is_written_is_read_with_every_column(tmp_path: Path, suffix: str) -> None:
    prompts = [
        Prompt(query="2 + 2?", task="sums", split="train", weight=1.5, reference="4", grader="number"),
        Prompt(query=({"role": "user", "content": "Grüß dich"},)),
    ]
    assert read_prompts([str(write_prompts(prompts, tmp_path / f"out.{suffix}"))]) == prompts


def test_the_command_counts_repeated_prompts_as_traffic(tmp_path: Path, prompts: list[Prompt]) -> None:
    write_prompts(prompts[:40], tmp_path / "prompts.jsonl")
    text = (tmp_path / "prompts.jsonl").read_text()
    (tmp_path / "prompts.jsonl").write_text(text + (text.splitlines()[0] + "\n") * 500)
    done = run("next-labels", "prompts.jsonl", "-o", "chosen.jsonl", "--count", 10, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    chosen = read_prompts([str(tmp_path / "chosen.jsonl")])
    assert chosen[0].query == prompts[0].query
    assert chosen[0].weight > 5
    assert chosen[1].weight < 1
    assert "wrote 10 of 40 prompts" in done.stderr


@pytest.mark.slow
def test_the_command_says_what_more_labels_would_buy(
    tmp_path: Path, prompts: list[Prompt], sample: Sample, bundle: Path
) -> None:
    write_prompts(prompts, tmp_path / "prompts.parquet")
    labelled = {prompt_key(prompt.query) for prompt in prompts[:70]}
    write_records([one for one in sample.performances if record_key(one) in labelled], tmp_path / "labels.jsonl")
    command = ["next-labels", "prompts.parquet", "-o", "chosen.csv", "--count", 30, "--labels", "labels.jsonl"]
    done = run(*command, "--router", bundle, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "70 have a label and are left out" in done.stderr
    assert "weights from" in done.stderr
    for words in ("140 labels instead of 70: APGR", "280 labels instead of 70", "points of the score with confidence"):
        assert words in done.stdout
    quiet = run(*command, "--no-curve", "--force", cwd=tmp_path)
    assert quiet.returncode == 0, quiet.stderr
    assert quiet.stdout == ""


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "give the number of prompts with --count"),
        (["--budget-usd", "1"], "give the models with --models"),
    ],
)
def test_the_command_refuses_what_it_cannot_do(
    tmp_path: Path, prompts: list[Prompt], flags: list[str], message: str
) -> None:
    write_prompts(prompts[:3], tmp_path / "prompts.jsonl")
    done = run("next-labels", "prompts.jsonl", "-o", "chosen.jsonl", *flags, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "chosen.jsonl").exists()


def test_the_command_takes_the_general_router_and_chooses_without_a_curve(
    tmp_path: Path, prompts: list[Prompt], sample: Sample
) -> None:
    """The labels name four models, so that nobody knows which two the curve is about."""
    write_prompts(prompts[:300], tmp_path / "prompts.jsonl")
    labelled = {prompt_key(prompt.query) for prompt in prompts[:70]}
    write_records([one for one in sample.performances if record_key(one) in labelled], tmp_path / "labels.jsonl")
    command = ["next-labels", "prompts.jsonl", "-o", "chosen.jsonl", "--count", 30, "--labels", "labels.jsonl"]
    done = run(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "no learning curve: the labels name the models" in done.stderr
    pair = ["--strong", "sim-max", "--weak", "sim-small"]
    general = run(*command, *pair, "--router", "general", "--no-curve", "--force", cwd=tmp_path)
    assert general.returncode == 0, general.stderr
    assert "weights from" in general.stderr


def test_the_pair_of_labels_is_the_better_and_the_worse_model() -> None:
    labels: list[Record] = [PerformanceRecord("a", "x", 0.2), PerformanceRecord("a", "y", 0.9)]
    assert pair_of_labels(labels) == ("y", "x")
    with pytest.raises(InputError, match="expected two"):
        pair_of_labels([*labels, PerformanceRecord("a", "z", 0.9)])
