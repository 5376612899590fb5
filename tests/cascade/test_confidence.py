"""Normalisers, self-consistency, self-evaluation."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from helpers.cascades import Scores, Sure
from hypothesis import given
from hypothesis import strategies as st

from routelearn.cascade.answer_forms import json_value, multiple_choice, number, similar, words
from routelearn.cascade.backends import Answer
from routelearn.cascade.confidence import (
    Ask,
    Confidence,
    Estimate,
    Joint,
    PriorConfidence,
    SelfConsistency,
    joint_confidence,
    needs_prior,
)
from routelearn.cascade.self_evaluation import SelfEvaluation, stated_confidence
from routelearn.routers.errors import InferenceError, InputError
from routelearn.routers.query import Query


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("42", 42),
        ("First 3, then 4: the total is 1,234.50 dollars.", Fraction("1234.5")),
        ("3 and 4 make 7\n#### 42\n", 42),
        (r"so $x$ is \boxed{\frac{3}{4}}, one of 2", Fraction(3, 4)),
        (r"\boxed{x = 7}; 9 is wrong", 7),
        ("It costs -$5.20", Fraction("-5.2")),
        ("$-5", -5),
        ("− 7", -7),
        ("between 3-5", 5),
        ("about 3/4.", Fraction(3, 4)),
        ("1e3", 1000),
        ("0.50", Fraction(1, 2)),
        (r"1{,}234", 1234),
        ("50 %", 50),
        ("It is 5 (see H2O, GPT4)", 5),
    ],
)
def test_the_last_number_is_read_exactly(text: str, value: Fraction | int) -> None:
    assert number(text) == value


@pytest.mark.parametrize("text", ["", "no number", "v1.2", "1/0", "9" * 5000])
def test_a_text_without_a_number_has_none(text: str) -> None:
    assert number(text) is None


@given(st.integers(-(10**9), 10**9), st.sampled_from(["{}", "The answer is {}.", "x = {}", "#### {}"]))
def test_every_integer_is_read_with_and_without_thousands(value: int, form: str) -> None:
    assert number(form.format(value)) == number(form.format(f"{value:,}")) == value


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("The answer is (C)", "C"),
        ("Answer: C", "C"),
        ("**C**", "C"),
        ("c", "C"),
        ("(b)", "B"),
        ("C) Paris", "C"),
        ("The answer is A because it is.", "A"),
        ("The answer is **B. Paris**", "B"),
        ("I first thought the answer is A. But then: the answer is D", "D"),
        (r"\boxed{\text{D}}", "D"),
        ("The correct option is (c)", "C"),
        ("Not (A), so I go for (B)", "B"),
    ],
)
def test_the_chosen_letter_is_read(text: str, letter: str) -> None:
    assert multiple_choice(text) == letter


@pytest.mark.parametrize("text", ["", "The answer is a dog", "Answer: I think so", "A good question", "none"])
def test_a_word_is_no_letter(text: str) -> None:
    assert multiple_choice(text) is None


@pytest.mark.parametrize(
    "text", ['{"b": 1.0, "a": [2]}', 'Here:\n```json\n{"a": [2],\n "b": 1}\n```\nDone.', 'See [1]: {"a":[2],"b":1} .']
)
def test_json_is_found_and_written_canonically(text: str) -> None:
    assert json_value(text) == '{"a":[2],"b":1}'


@pytest.mark.parametrize("text", ["", "no json", "NaN", "{", "[" * 100_000])
def test_what_is_no_json_has_none(text: str) -> None:
    assert json_value(text) is None


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda s: st.lists(s) | st.dictionaries(st.text(), s)
    )
)
def test_json_in_a_fence_is_the_same_as_json_alone(value: object) -> None:
    text = json.dumps(value)
    assert json_value(f"Sure!\n```json\n{json.dumps(value, indent=1)}\n```") == json_value(text) is not None


def test_similar_texts_agree_and_a_negation_does_not() -> None:
    same = similar(0.6)

    def agree(a: str, b: str) -> bool:
        return same(words(a) or frozenset(), words(b) or frozenset())

    assert agree("The capital is Paris.", "the capital is  PARIS")
    assert not agree("It is safe.", "It is not safe.")
    assert not agree("A beats B", "B beats A")
    assert agree("東京は日本の首都です", "東京は日本の首都です。")
    assert words(" ... ") is None
    with pytest.raises(InputError, match="bound"):
        similar(0)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("85", 0.85),
        ("85%", 0.85),
        ("0.85", 0.85),
        ("8/10", 0.8),
        ("8 out of 10", 0.8),
        ("I am 85 percent sure.", 0.85),
        ("Confidence: high", 0.85),
        ("Very low confidence", 0.05),
        ("medium", 0.5),
        ('```json\n{"confidence": 0.85}\n```', 0.85),
        ('{"confidence": "85%", "reasons": 3}', 0.85),
        ("**Confidence:** 90", 0.9),
        ("Confidence (0-100): 85", 0.85),
        ("On a scale from 0 to 100, I am 85 sure.", 0.85),
        ("I checked 3 things and 2 facts.\n90", 0.9),
        ("<think>2 of 3, say 40%</think>\n70", 0.7),
        ("1", 0.01),
        ("1.0", 1.0),
        ("0", 0.0),
        ("100", 1.0),
    ],
)
def test_a_stated_confidence_is_read(text: str, value: float) -> None:
    assert stated_confidence(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "no idea", "150", "-5", "my confidence is not high", "85, for 3 reasons", "3/0"])
def test_a_confidence_that_cannot_be_read_is_an_input_error(text: str) -> None:
    with pytest.raises(InputError, match="expected a number from 0 to 100"):
        stated_confidence(text)


@given(st.text(max_size=200))
def test_no_text_breaks_a_normaliser(text: str) -> None:
    number(text), multiple_choice(text), json_value(text), words(text)
    with suppress(InputError):
        assert 0 <= stated_confidence(text) <= 1


@pytest.mark.parametrize("piece", [" ", "\n", "answer ", "confidence ", "1 ", "1,", "{", "```\n", "\\boxed{", "*"])
def test_a_model_that_runs_wild_does_not_hang_a_normaliser(piece: str) -> None:
    """Quadratic time would take minutes here."""
    text = "answer confidence" + piece * 200_000
    number(text), multiple_choice(text), json_value(text), words(text)
    with suppress(InputError):
        stated_confidence(text)


class Model:
    """Gives its answers one after the other; an exception is raised."""

    def __init__(self, *answers: str | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[Query] = []
        self.running = self.most_running = 0

    async def __call__(self, query: Query) -> Answer:
        self.asked.append(query)
        answer = self.answers.pop(0)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        await asyncio.sleep(0)
        self.running -= 1
        if isinstance(answer, Exception):
            raise answer
        return Answer(answer)


def estimate(confidence: Confidence, model: Model, first: str = "42", query: Query = "How many?") -> Estimate:
    return asyncio.run(confidence.estimate(query, Answer(first), model))


def test_the_majority_answers_and_its_share_is_the_confidence() -> None:
    model = Model("41", "it is 41", "42", "41")
    estimated = estimate(SelfConsistency(5), model)
    assert estimated.answer is not None
    assert (estimated.answer.text, estimated.confidence) == ("41", 0.6)


def test_it_stops_when_the_majority_is_decided() -> None:
    model = Model("42", "42.0", "7", "7")
    assert estimate(SelfConsistency(5), model).confidence == 1.0
    assert len(model.asked) == 2


@given(
    st.lists(st.sampled_from("123"), min_size=4, max_size=8),
    st.none() | st.integers(1, 3),
    st.none() | st.sampled_from([0.2, 0.5, 0.6, 0.75, 1.0]),
)
def test_stopping_early_decides_as_all_samples_would(
    drawn: list[str], concurrency: int | None, threshold: float | None
) -> None:
    model = Model(*drawn[1:])
    consistency = SelfConsistency(len(drawn), concurrency=concurrency, threshold=threshold)
    estimated = estimate(consistency, model, drawn[0])
    counts = {answer: drawn.count(answer) for answer in drawn}
    most = max(counts.values())
    assert estimated.answer is not None
    if threshold is None:
        assert counts[estimated.answer.text] == most
    else:
        assert (estimated.confidence >= threshold) == (most / len(drawn) >= threshold)
    assert model.most_running <= (concurrency or len(drawn))


def test_a_threshold_stops_when_it_cannot_be_reached_any_more() -> None:
    model = Model("1", "2", "3", "4")
    assert estimate(SelfConsistency(5, threshold=0.8), model).confidence < 0.8
    assert len(model.asked) == 2  # three of five is the most there can still be


def test_failed_samples_are_left_out() -> None:
    model = Model(RuntimeError("down"), "7", RuntimeError("down"), "42")
    estimated = estimate(SelfConsistency(5), model)
    assert estimated.confidence == pytest.approx(2 / 3)
    assert len(model.asked) == 4


def test_when_every_sample_fails_there_is_no_confidence() -> None:
    with pytest.raises(InferenceError, match="none of 2 further samples succeeded: down"):
        estimate(SelfConsistency(3), Model(RuntimeError("down"), RuntimeError("down")))


def test_answers_without_a_number_agree_with_nothing() -> None:
    estimated = estimate(SelfConsistency(3), Model("dunno", "dunno"), "dunno")
    assert estimated.confidence == 0
    assert estimated.answer is not None
    assert estimated.answer.text == "dunno"


def test_free_text_agrees_by_similarity() -> None:
    model = Model("the capital of France is Paris", "Lyon, I believe", "The capital of France is Paris!")
    estimated = estimate(SelfConsistency(4, words, similar(0.6)), model, "The capital of France is Paris.")
    assert estimated.confidence == 0.75


@pytest.mark.parametrize(
    "make",
    [
        lambda: SelfConsistency(1),
        lambda: SelfConsistency(concurrency=0),
        lambda: SelfConsistency(threshold=1.5),
        lambda: SelfEvaluation("How sure?"),
        lambda: SelfEvaluation("{query} {answer} {other}"),
        lambda: SelfEvaluation(calibration=[(0.5, 0.5), (0.4, 0.6)]),
        lambda: SelfEvaluation(calibration=[(0.1, 0.5), (0.4, 0.3)]),
        lambda: SelfEvaluation.from_dict({"kind": "verifier"}),
        lambda: SelfEvaluation.from_dict({"kind": "self-evaluation", "template": "{query} {answer}"}),
    ],
)
def test_settings_that_cannot_work_are_input_errors(make: Callable[[], object]) -> None:
    with pytest.raises(InputError, match=r"expected|rising|settings"):
        make()


def test_self_evaluation_asks_about_the_query_and_the_answer() -> None:
    model = Model("I am 80% sure")
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How {many}?"}]
    estimated = estimate(SelfEvaluation(), model, "{42}", chat)
    assert estimated == Estimate(0.8)
    [prompt] = model.asked
    assert isinstance(prompt, str)
    assert "system: Be brief.\nuser: How {many}?" in prompt
    assert "{42}" in prompt


def test_a_reply_without_a_confidence_is_an_input_error() -> None:
    with pytest.raises(InputError, match="no confidence"):
        estimate(SelfEvaluation(), Model("As a language model I cannot say."))


def overconfident(n: int, seed: int) -> tuple[list[float], list[bool]]:
    """States that say 80 to 100 % where 30 to 90 % is true."""
    random = np.random.default_rng(seed)
    stated = random.choice([0.8, 0.85, 0.9, 0.95, 1.0], n)
    return stated.tolist(), (random.random(n) < 0.3 + (stated - 0.8) * 3).tolist()


def test_fitting_recalibrates_on_unseen_labels() -> None:
    fitted = SelfEvaluation().fit(*overconfident(400, 0))
    stated, good = overconfident(4000, 1)
    before = np.mean(np.abs(np.subtract(stated, good)) ** 2)
    after = np.mean(np.subtract([fitted.calibrated(s) for s in stated], good) ** 2)
    assert after < before - 0.05
    assert abs(np.mean([fitted.calibrated(s) for s in stated]) - np.mean(good)) < 0.05


@given(st.lists(st.tuples(st.integers(0, 100), st.booleans()), min_size=20, max_size=60))
def test_the_fitted_map_is_monotone_keeps_the_mean_and_survives_json(labels: list[tuple[int, bool]]) -> None:
    stated, good = [value / 100 for value, _ in labels], [label for _, label in labels]
    if len(set(good)) == 1:
        return
    fitted = SelfEvaluation("Q {query} A {answer}").fit(stated, good)
    values = [fitted.calibrated(value / 100) for value in range(101)]
    assert all(a <= b for a, b in pairwise(values))
    assert 0 <= values[0] <= values[-1] <= 1
    assert np.mean([fitted.calibrated(value) for value in stated]) == pytest.approx(np.mean(good))
    again = SelfEvaluation.from_dict(json.loads(json.dumps(fitted.as_dict())))
    assert again.as_dict() == fitted.as_dict()


def test_isotonic_fit_is_scikit_learns() -> None:
    isotonic = pytest.importorskip("sklearn.isotonic")
    stated, good = overconfident(300, 2)
    expected = isotonic.IsotonicRegression(out_of_bounds="clip").fit(stated, good)
    fitted = SelfEvaluation().fit(stated, good)
    places = np.linspace(0.8, 1, 30)
    assert np.allclose([fitted.calibrated(place) for place in places], expected.predict(places))


@pytest.mark.parametrize(
    ("stated", "good", "message"),
    [
        ([0.5] * 19, [True, False] * 9 + [True], "at least 20"),
        ([0.5] * 20, [True] * 19, "as many"),
        ([0.5] * 20, [True] * 20, "good and bad"),
        ([85.0] * 20, [True, False] * 10, "outside"),
    ],
)
def test_labels_that_fit_nothing_are_refused(stated: Sequence[float], good: Sequence[bool], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        SelfEvaluation().fit(stated, good)


def test_the_joint_confidence_is_low_where_strong_gains_not_where_both_fail() -> None:
    confidence = joint_confidence(np.array([0.3, 0.05]), np.array([0.9, 0.1]))
    assert confidence[0] < confidence[1]
    assert confidence.tolist() == pytest.approx([0.2, 0.475])
    assert joint_confidence(0.3, 0.9) == pytest.approx(0.2)


class ReadsPrior(PriorConfidence):
    async def estimate(self, query: Query, answer: Answer, ask: Ask, prior: float | None = None) -> Estimate:
        assert prior is not None
        return Estimate(1 - prior)


def test_only_a_confidence_of_the_base_class_needs_the_prior() -> None:
    assert needs_prior(ReadsPrior())
    assert needs_prior(Joint(ReadsPrior(), Scores()))
    assert not needs_prior(Sure(0.5))
    assert not needs_prior(Joint(Sure(0.5), Scores()))


def test_a_joint_confidence_hands_the_prior_on() -> None:
    joint = Joint(ReadsPrior(), Scores())
    estimated = asyncio.run(joint.estimate("0.75", Answer("42"), Model(), prior=0.5))
    assert estimated.confidence == pytest.approx(joint_confidence(0.5, 0.75))
