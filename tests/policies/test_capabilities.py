"""What requests need, and that no request goes to a model that cannot serve it."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routelearn.policies import Needs, among_able, lacking, needs_of
from routelearn.routers.decision import Decision, Model

STRONG = Model("strong", vision=True, tools=True, json_schema=True, max_input_tokens=100_000, files=False, audio=False)
WEAK = Model("weak", vision=False, tools=False, max_input_tokens=2000, max_output_tokens=500)
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


def decision(model: str, *others: str) -> Decision:
    return Decision(model, 0.4, 0.5, (model, *others), "learned", "score 0.4 is below the threshold", propensity=0.8)


@pytest.mark.parametrize(
    ("request_", "needed"),
    [
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "what?"}, IMAGE]}]}, "vision"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, "vision"),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image", "source": {"type": "base64", "data": "AA"}}]}
                ]
            },
            "vision",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": [IMAGE]}]}]},
            "vision",
        ),
        ({"contents": [{"parts": [{"inlineData": {"mimeType": "image/png", "data": "AA"}}]}]}, "vision"),
        ({"contents": [{"parts": [{"fileData": {"mimeType": "application/pdf", "fileUri": "x"}}]}]}, "files"),
        ({"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "x"}}]}]}, "files"),
        ({"messages": [{"role": "user", "content": [{"type": "document", "source": {}}]}]}, "files"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]}, "audio"),
        ({"messages": [{"role": "user", "content": "hi"}], "modalities": ["text", "audio"]}, "audio"),
        ({"messages": [{"role": "user", "content": "hi"}], "tools": [{"type": "function"}]}, "tools"),
        ({"messages": [{"role": "user", "content": "hi"}], "response_format": {"type": "json_schema"}}, "json_schema"),
        ({"input": "hi", "text": {"format": {"type": "json_schema"}}}, "json_schema"),
        ({"contents": [], "generationConfig": {"responseSchema": {"type": "OBJECT"}}}, "json_schema"),
    ],
)
def test_the_form_of_each_api_tells_what_is_needed(request_: dict[str, Any], needed: str) -> None:
    needs = needs_of(request_)
    assert [name for name in ("vision", "audio", "files", "tools", "json_schema") if getattr(needs, name)] == [needed]


def test_a_plain_request_needs_nothing_but_its_tokens() -> None:
    needs = needs_of({"model": "auto", "messages": [{"role": "user", "content": "x" * 300}], "max_tokens": 20})
    assert needs == Needs(input_tokens=needs.input_tokens, output_tokens=20)
    assert 100 <= needs.input_tokens <= 110
    assert needs_of({"response_format": {"type": "json_object"}, "tools": []}) == Needs()


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(
                    ["type", "content", "messages", "tools", "max_tokens", "text", "parts", "inlineData", "mimeType"]
                ),
                inner,
            )
        ),
    )
)
def test_nonsense_needs_something_but_never_fails(content: Any) -> None:
    request_ = content if isinstance(content, dict) else {"messages": content}
    assert needs_of(request_).input_tokens >= 0


def test_a_model_of_which_nothing_is_known_counts_as_able() -> None:
    assert lacking(Model("m"), Needs(10**9, 10**9, True, True, True, True, True)) == []


def test_the_decision_skips_a_model_that_cannot_and_says_so() -> None:
    found = among_able(decision("weak", "strong"), [STRONG, WEAK], Needs(vision=True, output_tokens=900), "strong")
    assert (found.model, found.candidates, found.cause, found.propensity) == ("strong", ("strong",), "skipped", 1.0)
    assert "skipped weak: it reads no images, it writes at most 500 tokens" in found.reason
    kept = among_able(decision("strong", "weak"), [STRONG, WEAK], Needs(vision=True), "strong")
    assert (kept.model, kept.candidates, kept.cause) == ("strong", ("strong",), "threshold")
    same = decision("weak", "strong")
    assert among_able(same, [STRONG, WEAK], Needs(input_tokens=5), "strong") is same


def test_the_only_model_that_is_able_answers_with_probability_one_whatever_was_drawn() -> None:
    for order, left in ((("strong", "weak"), 1.0), (("strong", "middle", "weak"), 0.05)):
        drawn = replace(decision(*order), cause="explore", propensity=0.05)
        found = among_able(drawn, [STRONG, WEAK], Needs(vision=True), "strong")
        assert (found.model, found.propensity) == ("strong", left)


def test_where_nobody_can_the_strong_model_is_asked_and_the_reason_says_what_is_missing() -> None:
    found = among_able(decision("weak", "strong"), [STRONG, Model("weak", audio=False)], Needs(audio=True), "strong")
    assert (found.model, found.cause) == ("strong", "unable")
    assert found.reason == (
        "no model of the pool can serve this request: weak: it reads no audio; strong: it reads no audio"
    )


def test_of_a_thousand_mixed_requests_none_goes_to_a_model_that_cannot_serve_it() -> None:
    chance = random.Random(0)
    pool = [STRONG, WEAK, Model("middle", vision=True, tools=False, max_input_tokens=20_000)]
    skipped = 0
    for _ in range(1000):
        content: list[dict[str, Any]] = [{"type": "text", "text": "word " * chance.choice([3, 300, 3000, 30_000])}]
        request_: dict[str, Any] = {"messages": [{"role": "user", "content": content}]}
        if chance.random() < 0.3:
            content.append(IMAGE)
        if chance.random() < 0.3:
            request_["tools"] = [{"type": "function", "function": {"name": "f"}}]
        if chance.random() < 0.2:
            request_["max_tokens"] = chance.choice([100, 600])
        order = chance.sample(["strong", "weak", "middle"], 3)
        needs = needs_of(request_)
        found = among_able(decision(*order), pool, needs, "strong")
        skipped += found.model != order[0]
        for name in found.candidates:
            model = next(model for model in pool if model.name == name)
            assert not lacking(model, needs)
        # What is known without the estimate: five characters a word are at least one token.
        words = len(content[0]["text"].split())
        assert words <= (next(model for model in pool if model.name == found.model).max_input_tokens or 0)
    assert 300 < skipped < 900
