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
    "short": "Turtles live in the garden of a neighbour who likes them a lot.",
    "very_short": "Turtles.",
    "code_block": "```\nx\n```",
    "formula": "What is 2 + 2?",
}
#: What rules in other languages must find: the rule and a query.
OTHER_LANGUAGES = [
    ("greeting", "¡Hola! ¿Qué tal?"),
    ("greeting", "Bonjour, ça va ?"),
    ("greeting", "Guten Morgen"),
    ("greeting", "Olá!"),
    ("greeting", "こんにちは！"),
    ("greeting", "你好，请问"),
    ("lookup", "¿Quién es el presidente?"),
    ("lookup", "Quelle est la capitale du Pérou ?"),
    ("code", "Escribe una función que ordene una lista"),
    ("code", "Schreibe einen Algorithmus"),
    ("code", "この関数を直してください"),
    ("code", "用代码实现快速排序"),
    ("mathematics", "Calcule la dérivée de f"),
    ("mathematics", "この方程式を解いてください"),
    ("mathematics", "求这个矩阵的行列式"),
    ("mathematics", "Найди решение уравнения"),
    ("reasoning", "Beweise es Schritt für Schritt"),
    ("reasoning", "Demonstre passo a passo"),
    ("reasoning", "これを証明してください"),
    ("reasoning", "请证明这个结论"),
]


@pytest.mark.parametrize("rule", FIRES)
def test_a_rule_fires_on_what_it_is_for(rule: str) -> None:
    assert rule in dict(RulesRouter().fired(FIRES[rule]))


@pytest.mark.parametrize(("rule", "query"), OTHER_LANGUAGES)
def test_rules_know_words_of_other_languages(rule: str, query: str) -> None:
    assert rule in dict(RulesRouter().fired(query))


@pytest.mark.parametrize(
    ("condition", "fires", "silent"),
    [
        ("words = ['red']", "A RED, red rose", "A redder rose"),
        ("words = ['diagnos*']", "The diagnosis", "A prediagnosis"),
        ("words = ['step by step']", "Step-by-step, please", "step by steps"),
        ("words = ['c++', 'c#']", "In C++?", "In C?"),
        ("words = ['red', 'dark blue']\nmin_matches = 2", "red or dark blue", "red or blue"),
        ("words = ['証明', 'red']", "これを証明して", "これを説明して"),
        ("opening = ['good day', 'hi']", "¡Good day, all!", "It is a good day"),
        ("opening = ['你好']", "你好吗", "他说你好"),
    ],
)
def test_words_match_whole_words_and_phrases(tmp_path: Path, condition: str, fires: str, silent: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f"[rules.a]\nweight = 1\n{condition}\n", encoding="utf-8")
    router = RulesRouter.from_toml(path)
    assert router.fired(fires) == [("a", 1)]
    assert router.fired(silent) == []


def test_nothing_fires_means_strong_and_the_source_says_default() -> None:
    decision = RulesRouter("big", "small").route(LONG)
    assert (decision.model, decision.source) == ("big", "default")
    assert "no rule fired" in decision.reason


def test_the_reason_names_the_rules_that_fired_with_their_weights() -> None:
    decision = RulesRouter("big", "small").route("Prove the theorem step by step")
    assert decision.source == "rules"
    assert "reasoning +1.1" in decision.reason
    assert "mathematics +0.9" in decision.reason


@pytest.mark.parametrize(
    "query",
    ["hi", "Hola", "こんにちは", "What is the capital of France?", "¿Cuál es la capital de Francia?", "Thanks a lot!"],
)
def test_greetings_and_short_look_ups_go_to_weak(query: str) -> None:
    assert RulesRouter("big", "small").route(query).model == "small"


@pytest.mark.parametrize(
    "query",
    [
        "Prove that the square root of 2 is irrational.",
        "Demuestra que la raíz de 2 es irracional.",
        "证明根号2是无理数。",
        "Fix the bug in this Java class",
        "Write a Python function that merges two sorted lists.",
        "用代码实现快速排序",
    ],
)
def test_proofs_and_code_go_to_strong(query: str) -> None:
    assert RulesRouter("big", "small").route(query).model == "big"


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
        ("[rules.a]\nweight = 1\nwords = 'x'\n", "rule a: words is 'x'; expected a list"),
        ("[rules.a]\nweight = 1\nwords = []\n", "rule a: words is \\[\\]; expected a list"),
        ("[rules.a]\nweight = 1\nopening = ['...']\n", "rule a: opening is"),
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
