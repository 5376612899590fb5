"""Copies, wrapped copies and shared preambles: the one rule of data/near_copies.py."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routelearn.data.near_copies import COMMON, near_copies
from routelearn.data.readers import read_records
from routelearn.data.sample import generate_sample
from routelearn.data.splits import find_copies
from routelearn.routers.query import prompt_key

TEMPLATES = (
    "Question: {}\nAnswer:",
    "You are a helpful assistant. Answer the question below as well as you can, and think step by step.\n\n{}",
    "### Instruction:\n{}\n\n### Response:\n",
    "Below is a question from a user. <question>{}</question> Reply with the final answer only, in one line.",
    "Please help me with this: {} Thank you very much!",
)
WORDS = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in "bdfgklmnprst"]


def question(number: int, words: int = 14) -> str:
    """A question of its own, of as many words."""
    return " ".join(random.Random(number).choices(WORDS, k=words)) + "?"


def keys(prompts: Sequence[str]) -> list[str]:
    return [prompt_key(prompt) for prompt in prompts]


def flagged(training: Sequence[str], evaluation: Sequence[str]) -> set[str]:
    """The evaluation prompts that are copies, as they were given."""
    found = {leak.prompt for leak in find_copies(keys(training), keys(evaluation))}
    return {prompt for prompt in evaluation if prompt_key(prompt) in found}


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("words", [8, 12, 40, 400])
def test_a_question_in_a_template_is_a_copy_on_either_side(template: str, words: int) -> None:
    """Also where the template stands in so few prompts that nothing shows that it is one."""
    plain = [question(number, words) for number in range(3)]
    wrapped = [template.format(text) for text in plain]
    if words >= 10:
        assert flagged(plain[:1], wrapped) == {wrapped[0]}
        assert flagged(wrapped[:1], plain) == {plain[0]}
    others = [template.format(question(number)) for number in range(100, 200)]
    assert flagged(plain, wrapped + others) == set(wrapped)
    assert flagged(wrapped + others, plain) == set(plain)


def test_a_question_in_two_templates_is_a_copy() -> None:
    training = [TEMPLATES[0].format(question(number)) for number in range(60)]
    evaluation = [TEMPLATES[3].format(question(number)) for number in range(50, 110)]
    assert flagged(training, evaluation) == set(evaluation[:10])


@pytest.mark.parametrize("shared_by", [2, 10, 2 * COMMON, 200])
def test_different_questions_behind_one_preamble_are_no_copies(shared_by: int) -> None:
    shots = "\n\n".join(f"Question: {question(-number - 1, 20)}\nAnswer: B" for number in range(5))
    prompts = [f"{shots}\n\nQuestion: {question(number)}\nAnswer:" for number in range(shared_by)]
    half = shared_by // 2
    assert not flagged(prompts[:half], prompts[half:])
    copied = prompts[0] + " Reply with one letter."
    assert flagged(prompts[:half], [*prompts[half:], copied]) == {copied}


def test_questions_that_share_their_options_are_no_copies() -> None:
    options = "\n".join(f"{letter}. {question(-number, 8)}" for number, letter in enumerate("ABCD", 1))
    prompts = [f"{question(number, 12)}\n{options}\nAnswer:" for number in range(60)]
    assert not flagged(prompts[:30], prompts[30:])
    assert not flagged(prompts[:2], prompts[2:4])


def test_short_prompts_are_copies_only_of_the_same_words() -> None:
    training = ["What is 2 + 2?", "Say hello.", "Explain this.", "What is C++?", "🙂"]
    others = ["What is 2 * 2?", "Say hello to Ana.", "Explain this, please.", "What is C?", "🎉", "!"]
    assert not flagged(training, others)
    assert flagged(training, ["what is 2+2", "say: hello"]) == {"what is 2+2", "say: hello"}


def test_scripts_without_blanks_are_compared_by_character() -> None:
    text = "電車は九時に駅を出て三時間走りますがどこまで行きますか"
    assert flagged([text], [f"質問：{text}。答え：", "質問：別の電車は何時に着きますか"]) == {f"質問：{text}。答え："}


@settings(max_examples=30)
@given(st.lists(st.text("abc +?", max_size=40), max_size=25), st.lists(st.text("abc +?", max_size=40), max_size=25))
def test_any_two_sides_can_be_compared(left: list[str], right: list[str]) -> None:
    left, right = sorted(set(left)), sorted(set(right))
    pairs = list(near_copies(left, right))
    assert {right[b] for _, b, _ in pairs} >= set(left) & set(right)
    assert all(0.8 <= similarity <= 1 for *_, similarity in pairs)
    swapped = {(b, a) for a, b, _ in near_copies(right, left)}
    assert {(a, b) for a, b, _ in pairs} == swapped


@pytest.mark.parametrize("source", ["mmlu", "arena", "sample"])
def test_500_prompts_in_templates_are_found_and_500_others_are_not(source: str, request: pytest.FixtureRequest) -> None:
    """Of prompts of ten words or more. The prompts of the sample come from templates: its copies are hard to tell."""
    if source == "sample":
        prompts = [str(query) for query in generate_sample(3000, seed=3).queries if isinstance(query, str)]
    else:
        folder: Path = request.getfixturevalue("real_data")
        file = {"mmlu": "routellm_eval/mmlu.parquet", "arena": "arena_human/arena_pairs.parquet"}[source]
        prompts = sorted({r.query for r in read_records(folder / file).records if isinstance(r.query, str)})
    prompts = [prompt for prompt in prompts if len(prompt.split()) >= 10]
    random.Random(5).shuffle(prompts)
    trained, others = prompts[:500], prompts[500:1000]
    wrapped, clean = ([form.format(p) for p in some for form in TEMPLATES] for some in (trained, others))
    found = flagged(trained, wrapped + clean)
    missed, wrong = len(set(wrapped) - found), len(set(clean) & found)
    assert missed <= (0.15 if source == "sample" else 0.005) * len(wrapped)
    assert wrong <= 0.02 * len(clean)


@pytest.mark.slow
def test_the_hash_seed_does_not_change_what_is_a_copy() -> None:
    code = (
        "from routelearn.data.sample import generate_sample; from routelearn.data.splits import find_leaks\n"
        "records = generate_sample(1500, seed=2).performances\n"
        "print([(leak.prompt, leak.similarity) for leak in find_leaks(records[::2], records[1::2])])"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1")
    ]
    assert outputs[0] == outputs[1] != "[]\n"
