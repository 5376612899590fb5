"""Slips at the interface of cascades: each is an InputError that says what to write, and is told before any call."""

from __future__ import annotations

from typing import Any

import pytest
from helpers.cascades import Scores, Scripted, Sure, tier, two
from helpers.slips import Slip, says_what_to_write

from routelearn.cascade.accounts import Budget
from routelearn.cascade.backends import from_callable, from_client
from routelearn.cascade.cascade import Cascade
from routelearn.cascade.confidence import Joint, SelfConsistency
from routelearn.cascade.self_evaluation import SelfEvaluation
from routelearn.cascade.tiers import Tier, UseCase
from routelearn.cascade.verifier import load_verifier
from routelearn.routers.decision import Model

WEAK: Any = tier("weak", Scripted(), Sure(0.9))
STRONG: Any = tier("strong", Scripted())
MODEL: Any = Model("weak", 1.0, 2.0)
BOTH: Any = [WEAK, STRONG]


async def later(result: Any) -> None: ...


SLIPS: list[Slip] = [
    (Tier, ("weak", Scripted()), {}, r"Model\('weak'\)"),
    (Tier, (None, Scripted()), {}, r"Model\("),
    (Tier, (MODEL, "an answer"), {}, "a function, or from_client"),
    (Tier, (MODEL, Scripted(), 0.5), {}, r"threshold=0.5"),
    (Tier, (MODEL, Scripted(), Sure), {}, r"an object: Sure\(...\)"),
    (Tier, (MODEL, Scripted(), Sure(0.9), "0.5"), {}, "a number from 0 to 1"),
    (Tier, (MODEL, Scripted(), Sure(0.9), 50), {}, "a number from 0 to 1"),
    (Tier, (MODEL, Scripted(), Sure(0.9), None), {}, "a number from 0 to 1"),
    (Tier, (MODEL, Scripted()), {"timeout_s": "5"}, "seconds above 0"),
    (Tier, (MODEL, Scripted()), {"expected_s": "5"}, "seconds above 0"),
    (Tier, (MODEL, Scripted()), {"expected_output_tokens": "5"}, "a whole number"),
    (Cascade, (WEAK,), {}, r"\[Tier\(...\), Tier\(...\)\]"),
    (Cascade, ({"weak": WEAK, "strong": STRONG},), {}, r"\[Tier\(...\), Tier\(...\)\]"),
    (Cascade, ([MODEL, MODEL],), {}, r"Tier\(Model"),
    (Cascade, (BOTH,), {"router": "router/"}, r"routelearn.load\(path\)"),
    (Cascade, (BOTH,), {"budget": 5.0}, r"Budget\(max_usd\)"),
    (Cascade, (BOTH,), {"deadline_s": "5"}, "seconds above 0"),
    (Cascade, (BOTH,), {"max_cost_usd": "5"}, "a finite number of USD"),
    (Cascade, (BOTH,), {"max_cost_usd": float("nan")}, "a finite number of USD"),
    (Cascade, (BOTH,), {"router": Scores(), "direct_threshold": "0.9"}, "a number from 0 to 1"),
    (Cascade, (BOTH,), {"router": Scores(), "direct_threshold": float("nan")}, "a number from 0 to 1"),
    (Cascade, (BOTH,), {"use_cases": {"legal": "strong"}}, r"UseCase\("),
    (Cascade, (BOTH,), {"use_cases": ["legal"]}, r"\{'name': UseCase\(...\)\}"),
    (Cascade, (BOTH,), {"default_use_case": "strong"}, r"UseCase\("),
    (Cascade, (BOTH,), {"on_result": "print"}, "a plain function"),
    (Cascade, (BOTH,), {"on_result": later}, "a plain function"),
    (Cascade(BOTH).run, (5,), {}, "a string or a list of messages"),
    (Cascade(BOTH).run, (["hi"],), {}, "'role' and 'content'"),
    (Cascade(BOTH).run, ("hi",), {"deadline_s": "5"}, "seconds above 0"),
    (Cascade(BOTH).run, ("hi",), {"use_case": ["legal"]}, "the name of a use case"),
    (Cascade(BOTH).stream, (None,), {}, "a string or a list of messages"),
    (UseCase, (0.9,), {}, "one of"),
    (UseCase, ("cascade", "0.9"), {}, "a number from 0 to 1"),
    (Budget, ("5",), {}, "a finite number of USD"),
    (Budget, (None,), {}, "a finite number of USD"),
    (Budget, (5, "60"), {}, "seconds above 0"),
    (Budget(5).reserve, ("1",), {}, "a finite number"),
    (SelfConsistency, ("5",), {}, "a whole number"),
    (SelfConsistency, (5.5,), {}, "a whole number"),
    (SelfConsistency, (), {"normalise": "number"}, "functions"),
    (SelfConsistency, (), {"threshold": "0.5"}, "a number above 0"),
    (SelfConsistency, (), {"threshold": 50}, "a number above 0"),
    (SelfConsistency, (), {"concurrency": "2"}, "a whole number"),
    (SelfEvaluation, (), {"calibration": [0.5, 0.6]}, r"\(stated, true\) pairs"),
    (SelfEvaluation().fit, (["a"] * 30, [True] * 30), {}, "numbers and labels"),
    (Joint, (Sure(0.9), "router/"), {}, r"routelearn.load\(path\)"),
    (Joint, (0.9, Scores()), {}, "an object with a method"),
    (from_callable, ("an answer",), {}, "a function"),
    (from_client, ("gpt-4o", "m"), {}, "a client like openai.OpenAI"),
    (load_verifier, (5,), {}, "a path"),
]


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_says_what_to_write(slip: Slip) -> None:
    says_what_to_write(*slip)


def test_a_threshold_above_one_accepts_no_answer() -> None:
    assert two(Scripted(), Scripted("from strong"), 1.0, weak_settings={"threshold": 1.01}).run("hi").model == "strong"
