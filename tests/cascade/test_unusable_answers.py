"""Answers that are none: empty, refused, filtered, cut off by the limit on their length, or no completion at all."""

from __future__ import annotations

from types import SimpleNamespace as Namespace
from typing import Any

import pytest
from helpers.cascades import Scores, Scripted, Sure, tier, two

from routelearn.cascade.backends import Answer, fault_of, from_client
from routelearn.cascade.cascade import Cascade
from routelearn.cascade.confidence import SelfConsistency
from routelearn.cascade.tiers import CascadeError, UseCase

USAGE = Namespace(prompt_tokens=9, completion_tokens=7)


def client(content: Any, reason: Any = "stop", **more: Any) -> Any:
    """A client whose service gives one reply, in one piece or as a stream of words."""

    def create(stream: bool = False, **options: Any) -> Any:
        if not stream:
            choice = Namespace(message=Namespace(content=content, **more), finish_reason=reason)
            return Namespace(choices=[choice], usage=USAGE)
        words = content.split(" ") if content else []
        chunks = [Namespace(delta=Namespace(content=word, **more), finish_reason=None) for word in words]
        chunks.append(Namespace(delta=Namespace(content=None, **more), finish_reason=reason))
        return iter([*(Namespace(choices=[choice]) for choice in chunks), Namespace(choices=[], usage=USAGE)])

    return from_client(Namespace(chat=Namespace(completions=Namespace(create=create))), "m")


def replies_with(reply: Any) -> Any:
    return from_client(Namespace(chat=Namespace(completions=Namespace(create=lambda **options: reply))), "m")


NOTHING = {
    "filtered": client(None, "content_filter"),
    "filtered with a text": client("I started to", "content_filter"),
    "filtered, as an enum": client("", Namespace(value="SAFETY")),
    "all tokens spent on reasoning": client("", "length"),
    "refusal": client(None, "stop", refusal="I cannot help with that."),
    "refusal with a text": client("Hm.", "stop", refusal="I cannot help with that."),
    "a call of a tool": client(None, "tool_calls"),
    "broken off by the service": client("Half of", "error"),
    "white space": client(" \n"),
    "no choices": replies_with(Namespace(choices=[], usage=None)),
    "null choices": replies_with(Namespace(choices=None, usage=None)),
    "a page of HTML": replies_with("<html>Bad gateway</html>"),
    "an error object": replies_with(Namespace(error=Namespace(message="overloaded"))),
    "an empty string of a function": lambda query: "",
    "an answer without a text": lambda query: Answer(None),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("strong", NOTHING.values(), ids=NOTHING)
@pytest.mark.parametrize("streamed", [False, True])
def test_a_strong_without_an_answer_gives_back_the_weak_answer_marked(strong: Any, streamed: bool) -> None:
    cascade = two(Scripted("from weak"), strong, 0.2)
    if streamed:
        stream = cascade.stream("hi")
        try:
            list(stream)
            result = stream.result
        except CascadeError as error:  # pieces of it were sent
            assert "after part of its answer was sent" in str(error)
            return
    else:
        result = cascade.run("hi")
    assert (result.answer, result.model, result.degraded) == ("from weak", "weak", "failure")
    assert "strong failed" in result.reason
    assert result.calls[1].error


@pytest.mark.parametrize("weak", NOTHING.values(), ids=NOTHING)
def test_a_weak_without_an_answer_escalates_unverified(weak: Any) -> None:
    sure = Sure(1.0)
    result = two(weak, Scripted("from strong"), sure).run("hi")
    assert (result.answer, result.degraded) == ("from strong", None)
    assert not sure.priors


def test_a_reply_without_an_answer_costs_what_the_service_reports() -> None:
    result = two(client(None, "content_filter"), Scripted()).run("hi")
    call = result.calls[0]
    assert (call.input_tokens, call.output_tokens, call.estimated) == (9, 7, False)
    assert call.error == "the answer was filtered (finish_reason 'content_filter')"


def test_without_any_answer_the_cascade_fails() -> None:
    with pytest.raises(CascadeError, match="the answer is empty"):
        two(lambda query: "", lambda query: "").run("hi")


@pytest.mark.parametrize("reason", ["length", "max_tokens", "MAX_TOKENS"])
def test_an_answer_that_was_cut_off_escalates_and_is_better_than_none(reason: str) -> None:
    cut = client("It begins", reason)
    assert two(cut, Scripted("from strong")).run("hi").answer == "from strong"
    result = two(Scripted("from weak"), cut, 0.1).run("hi")
    assert (result.answer, result.degraded) == ("from weak", "failure")  # the whole one
    result = two(cut, Scripted(RuntimeError("down"))).run("hi")
    assert (result.answer, result.model, result.confidence, result.degraded) == ("It begins", "weak", None, "failure")


def test_a_strong_that_was_cut_off_on_a_hard_query_has_weak_asked_and_then_its_own_part() -> None:
    cut = client("It begins", "length")
    hard: dict[str, Any] = {"router": Scores(), "direct_threshold": 0.5}
    result = two(Scripted("from weak"), cut, **hard).run("0.9")
    assert (result.answer, result.degraded) == ("from weak", "failure")
    result = two(Scripted(RuntimeError("down")), cut, **hard).run("0.9")
    assert (result.answer, result.model, result.degraded) == ("It begins", "strong", "failure")


def test_a_stream_that_was_cut_off_ends_with_what_was_sent_marked() -> None:
    stream = two(Scripted("from weak"), client("It begins so", "length"), default_use_case=UseCase("strong")).stream(
        "hi"
    )
    assert list(stream) == ["It", "begins", "so"]
    assert (stream.result.answer, stream.result.model, stream.result.degraded) == ("Itbeginsso", "strong", "failure")


def test_a_sample_that_was_cut_off_does_not_vote() -> None:
    answers = iter([Answer("42"), Answer("7 because", finish_reason="length"), Answer("42")])
    result = two(lambda query: next(answers), Scripted(), SelfConsistency(3)).run("6 x 7?")
    assert (result.answer, result.confidence) == ("42", 1.0)


def test_three_tiers_skip_the_one_without_an_answer() -> None:
    cascade = Cascade(
        [
            tier("weak", Scripted("from weak"), Sure(0.1)),
            tier("middle", client("", "length"), Sure(1.0)),
            tier("strong", Scripted("from strong")),
        ]
    )
    assert cascade.run("hi").answer == "from strong"


@pytest.mark.parametrize("reason", [None, "stop", "STOP", "end_turn", "eos", "complete", "something new"])
def test_any_other_reason_leaves_an_answer_alone(reason: str | None) -> None:
    assert fault_of(Answer("144", finish_reason=reason)) is None
    assert two(client("144", reason), Scripted()).run("hi").model == "weak"
