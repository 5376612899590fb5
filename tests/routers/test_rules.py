from __future__ import annotations

from pathlib import Path

import pytest

from routelearn.routers.errors import InputError
from routelearn.routers.rules import RulesRouter, load_rules

LONG = "A plain remark about turtles in the garden of a neighbour who likes them a lot. " * 3
FIRES = {
    "greeting": "Hello there!",
    "lookup": "What is the capital of France?",
    "code": "My Python loop raises an exception",
    "mathematics": "Compute the integral of x^2 from 0 to 1",
    "reasoning": "Prove it step by step",
    "constraints": "Use exactly five lines and do not use commas",
    "several_questions": "Who? When? Where? Why?",
    "language": "解释一下量子纠缠的基本原理",
    "long": LONG * 4,
    "long_context": LONG * 30,
    "expert_domain": "Is warfarin contraindicated here?",
    "short": "Turtles.",
}


@pytest.mark.parametrize("rule", FIRES)
def test_a_rule_fires_on_what_it_is_for(rule: str) -> None:
    assert rule in dict(RulesRouter().fired(FIRES[rule]))


def test_nothing_fires_means_strong_and_the_source_says_default() -> None:
    decision = RulesRouter("big", "small").route(LONG)
    assert (decision.model, decision.source) == ("big", "default")
    assert "no rule fired" in decision.reason


def test_the_reason_names_the_rules_that_fired_with_their_weights() -> None:
    decision = RulesRouter("big", "small").route("Prove the theorem step by step")
    assert decision.source == "rules"
    assert "reasoning +1.2" in decision.reason
    assert "mathematics +1.1" in decision.reason


def test_a_greeting_goes_to_weak_and_a_proof_to_strong() -> None:
    router = RulesRouter("big", "small")
    assert router.route("hi").model == "small"
    assert router.route("Prove that the square root of 2 is irrational.").model == "big"


def test_the_user_tier_moves_the_decision() -> None:
    router = RulesRouter("big", "small")
    assert router.route("Turtles.", context={"tier": "premium"}).model == "big"
    assert router.route("Turtles.", context={"tier": "free"}).model == "small"


def test_a_follow_up_inherits_the_conversation() -> None:
    chat = [
        {"role": "user", "content": "Prove the theorem."},
        {"role": "assistant", "content": "Shall I?"},
        {"role": "user", "content": "yes"},
    ]
    assert "reasoning" in dict(RulesRouter().fired(chat))


def test_a_user_can_edit_the_rules(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("bias = -1\nthreshold = 0.9\n[rules.turtles]\nweight = 5\npattern = 'turtle'\n")
    router = RulesRouter.from_toml(path, "big", "small")
    assert router.route("Turtles!").model == "big"
    assert router.fired("turtle") == [("turtles", 5)]
    assert router.threshold == 0.9


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[rules.a]\nweight = 1\npattern = '('\n", "rule a: pattern '\\(' is not valid"),
        ("[rules.a]\nweight = 1\n", "expected exactly one of"),
        ("[rules.a]\npattern = 'x'\n", "rule a: expected a weight"),
        ("[rules.a]\nweight = 'x'\npattern = 'x'\n", "rule a: weight is 'x'"),
        ("[rules.a]\nweight = 1\npatern = 'x'\n", "rule a"),
        ("[rules.a]\nweight = 1\npattern = 'x'\ntier = 'y'\n", "exactly one"),
        ("bais = 1\n[rules.a]\nweight = 1\npattern = 'x'\n", "bais"),
        ("bias = 1\n", "table of rules"),
        ("[rules", "is not TOML"),
        ("threshold = true\n[rules.a]\nweight = 1\npattern = 'x'\n", "threshold is True"),
    ],
)
def test_bad_rules_name_the_file_and_the_rule(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        load_rules(path)
    assert "bad.toml" in str(caught.value)


def test_missing_rules_are_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        load_rules(tmp_path / "none.toml")
