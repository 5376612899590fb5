"""The votes of a person: what is shown, undo, skips, repeats, and the records."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routelearn.data.readers import read_records
from routelearn.labelling import ModelAnswer, Prompt, Votes, choose_pairs
from routelearn.routers.errors import InputError

PAIR: dict[str, Any] = {"strong": "sim-max", "weak": "sim-small"}


def answers(count: int, *models: str) -> list[ModelAnswer]:
    """Answers whose text names the model, so that a test knows who stands where."""
    prompts = [
        Prompt(query=f"Question {number}?", task="made-up", split="train", weight=2.0) for number in range(count)
    ]
    return [
        ModelAnswer(prompt=prompt, model=model, response=f"{model} says {prompt.query}")
        for prompt in prompts
        for model in models or ("sim-max", "sim-small")
    ]


def vote(votes: Votes, choice: Any) -> str:
    """Vote on what is shown: the key of the pair."""
    showing = votes.showing()
    assert showing is not None
    assert votes.vote(showing.number, choice)
    return showing.key


def vote_for(votes: Votes, model: str) -> None:
    showing = votes.showing()
    assert showing is not None
    votes.vote(showing.number, "left" if showing.left.startswith(model) else "right")


def test_the_records_say_who_was_better_whichever_side_it_stood_on(tmp_path: Path) -> None:
    with Votes(answers(30), tmp_path / "l.jsonl", repeat_share=0, **PAIR) as votes:
        sides = Counter()
        for number in range(30):
            showing = votes.showing()
            assert showing is not None
            sides[showing.swapped] += 1
            vote_for(votes, "sim-small" if number % 3 == 0 else "sim-max")
        assert votes.showing() is None
        votes.write()
        assert min(sides.values()) > 5
    records = read_records(tmp_path / "l.jsonl").records
    assert Counter(record.preference for record in records) == {1.0: 20, 0.0: 10}
    for record in records:
        assert (record.model_a, record.model_b) == ("sim-max", "sim-small")
        assert record.response_a == f"sim-max says {record.query}"
        assert record.response_b == f"sim-small says {record.query}"
        assert (record.task, record.split, record.weight) == ("made-up", "train", 2.0)
    assert {json.loads(line)["source"] for line in (tmp_path / "l.jsonl").open()} == {"human"}


def test_two_bad_answers_are_a_tie_and_a_skip_is_no_record(tmp_path: Path) -> None:
    with Votes(answers(4), tmp_path / "l.jsonl", repeat_share=0, labeller="anna", **PAIR) as votes:
        for choice in ("tie", "both-bad", "skip"):
            vote(votes, choice)
        assert [record.preference for record in votes.records()] == [0.5, 0.5]
        assert {record.source for record in votes.records()} == {"anna"}
        found = votes.summary()
        assert (found.votes, found.ties, found.both_bad, found.skipped) == (2, 2, 1, 1)
        assert votes.progress() == (3, 4)


def test_undo_goes_back_step_by_step_also_after_a_restart(tmp_path: Path) -> None:
    with Votes(answers(6), tmp_path / "l.jsonl", repeat_share=0, **PAIR) as votes:
        first, second, third = (vote(votes, choice) for choice in ("left", "skip", "right"))
        assert votes.undo(votes.number)
        assert votes.showing().key == third  # type: ignore[union-attr]
    with Votes(answers(6), tmp_path / "l.jsonl", repeat_share=0, **PAIR) as votes:
        assert votes.undo(votes.number)
        assert votes.undo(votes.number)
        assert not votes.can_undo
        assert not votes.undo(votes.number)
        assert votes.records() == []
        assert [vote(votes, "tie") for _ in range(3)] == [first, second, third]
        assert [record.preference for record in votes.records()] == [0.5] * 3


def test_a_file_of_votes_that_are_all_undone_is_gone(tmp_path: Path) -> None:
    with Votes(answers(3), tmp_path / "l.jsonl", **PAIR) as votes:
        vote(votes, "left")
        votes.write()
        assert (tmp_path / "l.jsonl").is_file()
        votes.undo(votes.number)
        votes.write()
        assert not (tmp_path / "l.jsonl").exists()


def test_a_vote_that_is_sent_twice_counts_once_and_an_unknown_one_never(tmp_path: Path) -> None:
    with Votes(answers(5), tmp_path / "l.jsonl", **PAIR) as votes:
        number = votes.number
        assert votes.vote(number, "left")
        assert not votes.vote(number, "left")
        assert not votes.undo(number)
        with pytest.raises(InputError, match="expected one of"):
            votes.vote(votes.number, "best")  # type: ignore[arg-type]
        assert len(votes.records()) == 1


def test_the_start_writes_what_a_killed_run_left_in_the_journal(tmp_path: Path) -> None:
    out = tmp_path / "l.jsonl"
    with Votes(answers(5), out, **PAIR) as votes:
        vote(votes, "tie")
        expected = votes.records()
    with out.with_name("l.jsonl.journal").open("a") as journal:
        journal.write('{"key": "torn')
    Votes(answers(5), out, **PAIR).close()
    assert read_records(out).records == [replace(record, source=None) for record in expected]


def test_records_of_answers_that_are_not_given_any_more_stay(tmp_path: Path) -> None:
    out = tmp_path / "l.jsonl"
    with Votes(answers(2), out, **PAIR) as votes:
        vote(votes, "left")
    others = [one for one in answers(9) if one.prompt.query not in {"Question 0?", "Question 1?"}]
    with Votes(others, out, **PAIR) as votes:
        vote(votes, "tie")
        assert not votes.can_undo or votes.undo(votes.number)
        assert len(votes.records()) == 1
        assert votes.progress()[0] == 0


def test_pairs_that_were_skipped_come_last_at_the_next_start(tmp_path: Path) -> None:
    with Votes(answers(3), tmp_path / "l.jsonl", repeat_share=0, **PAIR) as votes:
        skipped = vote(votes, "skip")
    with Votes(answers(3), tmp_path / "l.jsonl", repeat_share=0, **PAIR) as votes:
        assert votes.progress() == (0, 3)
        keys = [vote(votes, "left") for _ in range(3)]
        assert keys[2] == skipped
        assert votes.showing() is None
        assert votes.progress() == (3, 3)


def test_a_repeat_swaps_the_sides_and_measures_agreement(tmp_path: Path) -> None:
    with Votes(answers(40), tmp_path / "l.jsonl", repeat_share=0.5, **PAIR) as votes:
        swapped: dict[str, bool] = {}
        while (showing := votes.showing()) is not None:
            if showing.again:
                assert showing.swapped != swapped[showing.pair.key]
            swapped[showing.pair.key] = showing.swapped
            wins = "sim-small" if showing.again and showing.pair.prompt.query < "Question 2" else "sim-max"
            vote_for(votes, wins)
        found = votes.summary()
        changed = sum(key < "Question 2" for key in (pair.prompt.query for pair in votes.pairs))  # type: ignore[operator]
        assert (found.votes, found.repeats) == (40, 20)
        assert 20 - changed <= found.agreed < 20
        low, high = found.agreement or (0, 0)
        assert low < found.agreed / 20 < high
        assert len(votes.records()) == 40
        assert {record.preference for record in votes.records()} == {1.0}
        assert votes.progress() == (60, 60)


@given(
    st.integers(1, 12),
    st.floats(0, 1),
    st.lists(st.sampled_from(["left", "right", "tie", "both-bad", "skip", "undo", "restart"]), max_size=40),
)
def test_whatever_is_pressed_the_records_are_the_votes_that_stand(
    tmp_path_factory: pytest.TempPathFactory, count: int, share: float, pressed: list[Any]
) -> None:
    out = tmp_path_factory.mktemp("votes") / "l.jsonl"
    votes = Votes(answers(count), out, repeat_share=share, **PAIR)
    standing: list[tuple[str, str, bool]] = []
    previous = None
    for choice in pressed:
        showing = votes.showing()
        if choice == "restart":
            votes.close()
            votes = Votes(answers(count), out, repeat_share=share, **PAIR)
        elif choice == "undo":
            assert votes.undo(votes.number) == bool(standing)
            undone = standing.pop() if standing else None
            previous = None
            if undone:
                assert votes.showing().key == undone[0]  # type: ignore[union-attr]
        elif showing is not None:
            assert not (showing.again and showing.pair.key == previous)
            assert votes.vote(showing.number, choice)
            standing = [one for one in standing if one[0] != showing.key]
            standing.append((showing.key, choice, showing.swapped))
            previous = showing.pair.key
        done, total = votes.progress()
        assert done <= total
    value = {("left", False): 1.0, ("left", True): 0.0, ("right", False): 0.0, ("right", True): 1.0}
    pairs = {pair.key: pair.prompt.query for pair in votes.pairs}
    expected = {
        pairs[key]: value.get((choice, swapped), 0.5)
        for key, choice, swapped in standing
        if choice != "skip" and not key.endswith(":again")
    }
    assert {record.query: record.preference for record in votes.records()} == expected
    votes.close()
    if expected:
        Votes(answers(count), out, **PAIR).close()
        assert {r.query: r.preference for r in read_records(out).records} == expected  # type: ignore[union-attr]


def test_more_than_two_models_are_compared_about_equally_often() -> None:
    pairs = choose_pairs(answers(60, "a", "b", "c"))
    assert Counter(pair.models for pair in pairs) == {("a", "b"): 20, ("a", "c"): 20, ("b", "c"): 20}


def test_pairs_that_have_votes_are_chosen_again_under_another_seed(tmp_path: Path) -> None:
    many = answers(30, "a", "b", "c")
    with Votes(many, tmp_path / "l.jsonl", repeat_share=0) as votes:
        keys = {vote(votes, "tie") for _ in range(10)}
    with Votes(many, tmp_path / "l.jsonl", repeat_share=0, seed=7, limit=15) as votes:
        assert keys < {pair.key for pair in votes.pairs}
        assert votes.progress() == (10, 15)


def test_an_answer_that_the_service_failed_to_give_is_not_compared() -> None:
    prompt = Prompt(query="Hello?")
    there = [*answers(1), ModelAnswer(prompt=prompt, model="sim-max", response="", status="failed")]
    there.append(ModelAnswer(prompt=prompt, model="sim-small", response="Hello"))
    assert [pair.prompt.query for pair in choose_pairs(there)] == ["Question 0?"]


def test_a_chat_is_a_record_of_its_messages(tmp_path: Path) -> None:
    chat = ({"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"})
    prompt = Prompt(query=(*chat, {"role": "user", "content": "And?"}))
    there = [ModelAnswer(prompt=prompt, model=model, response=model) for model in ("a", "b")]
    with Votes(there, tmp_path / "l.jsonl") as votes:
        vote(votes, "tie")
        votes.write()
    assert read_records(tmp_path / "l.jsonl").records[0].query == prompt.query


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strong": "sim-max"}, "only one of strong and weak"),
        ({"strong": "sim-max", "weak": "sim-max"}, "are both 'sim-max'"),
        ({"strong": "sim-max", "weak": "sim-tiny"}, "no answer of 'sim-tiny'"),
        ({"repeat_share": 1.5}, "from 0 to 1"),
    ],
)
def test_wrong_settings_are_refused_before_a_journal_is_begun(
    tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Votes(answers(2), tmp_path / "l.jsonl", **settings)
    assert list(tmp_path.iterdir()) == []


def test_an_output_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    out = tmp_path / "l.jsonl"
    out.write_text(json.dumps({"prompt": "mine"}))
    with pytest.raises(InputError, match="choose another output"):
        Votes(answers(2), out, **PAIR)
    assert "mine" in out.read_text()


def test_two_runs_on_one_output_are_refused(tmp_path: Path) -> None:
    with (
        Votes(answers(2), tmp_path / "l.jsonl", **PAIR),
        pytest.raises(InputError, match="another process writes"),
    ):
        Votes(answers(2), tmp_path / "l.jsonl", **PAIR)
