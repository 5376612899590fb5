"""The cascade: what it accepts and escalates, clients, use cases, and what holds of every run."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from typing import Any

import openai
import pytest
from helpers.cascades import PRICES, Scores, Scripted, Sure, models, tier, two
from helpers.openai_server import OpenAIServer
from hypothesis import given
from hypothesis import strategies as st

from routelearn.cascade.accounts import Budget
from routelearn.cascade.backends import Answer, from_client
from routelearn.cascade.cascade import Cascade
from routelearn.cascade.confidence import SelfConsistency
from routelearn.cascade.self_evaluation import SelfEvaluation
from routelearn.cascade.tiers import CascadeError, CascadeResult, Tier, UseCase
from routelearn.routers.decision import Model
from routelearn.routers.errors import InputError, RoutelearnError
from routelearn.routers.query import Query

# What is accepted and what escalates


def test_a_confident_answer_is_accepted_and_strong_is_not_asked() -> None:
    weak, strong = Scripted("from weak"), Scripted()
    result = two(weak, strong, 0.5).run("hi")
    assert (result.answer, result.model, result.confidence, result.escalated) == ("from weak", "weak", 0.5, False)
    assert (len(weak.asked), len(strong.asked)) == (1, 0)
    assert result.cost_usd == pytest.approx((100 * 1 + 10 * 2) / 1e6)
    assert result.reason == "confidence in weak is 0.50, at or above 0.50"
    assert (result.degraded, result.outcome) == (None, "answered")


def test_an_unsure_answer_escalates() -> None:
    weak, strong = Scripted(), Scripted("from strong")
    result = two(weak, strong, 0.49).run("hi")
    assert (result.answer, result.model, result.confidence, result.escalated) == ("from strong", "strong", None, True)
    assert models(result) == ["weak", "strong"]
    assert result.reason == "strong answers: confidence in weak is 0.49, below 0.50"
    assert list(result.tier_latency_s) == ["weak", "strong"]
    assert result.cost_usd == pytest.approx((100 * 1 + 10 * 2 + 100 * 10 + 10 * 30) / 1e6)


def test_three_tiers_are_asked_in_their_order_until_one_is_sure() -> None:
    back_ends = [Scripted(name) for name in PRICES]
    cascade = Cascade(
        [
            tier("weak", back_ends[0], Sure(0.1)),
            tier("middle", back_ends[1], Sure(0.8), threshold=0.7),
            tier("strong", back_ends[2]),
        ]
    )
    result = cascade.run("hi")
    assert (result.answer, result.escalated, models(result)) == ("middle", True, ["weak", "middle"])
    assert not back_ends[2].asked


def test_the_result_is_plain_data() -> None:
    result = two(Scripted(), Scripted(), 0.2).run("hi")
    plain = json.loads(json.dumps(result.as_dict()))
    assert plain["calls"][1]["model"] == "strong"
    assert plain["tier_latency_s"].keys() == {"weak", "strong"}


def test_self_consistency_answers_with_the_majority_and_counts_its_samples() -> None:
    answers = iter(["41", "42", "42", "42"])
    result = two(lambda query: next(answers), Scripted(), SelfConsistency(5)).run("6 x 7?")
    assert (result.answer, result.confidence) == ("42", 0.75)
    assert [call.purpose for call in result.calls] == ["answer", "confidence", "confidence", "confidence"]


def test_self_evaluation_is_one_more_call() -> None:
    weak = Scripted("85")
    result = two(weak, Scripted(), SelfEvaluation()).run("hi")
    assert (result.confidence, [call.purpose for call in result.calls]) == (0.85, ["answer", "confidence"])


@pytest.mark.parametrize("confidence", [RuntimeError("no graph"), float("nan"), 1.5])
def test_a_confidence_that_cannot_be_had_escalates(confidence: Any) -> None:
    result = two(Scripted(), Scripted("from strong"), confidence).run("hi")
    assert (result.model, result.escalated, result.degraded) == ("strong", True, None)
    assert "no confidence in weak" in result.reason


# Callables and clients


def test_sync_and_async_functions_are_back_ends() -> None:
    async def strong(query: Query) -> Answer:
        return Answer(f"strong: {query}", 7, 3)

    result = two(lambda query: f"weak: {query}", strong, 0.0).run("hi")
    assert result.answer == "strong: hi"
    weak, strong_call = result.calls
    assert (weak.estimated, weak.input_tokens, weak.output_tokens) == (True, 1, 2)  # 2 and 8 characters
    assert (strong_call.estimated, strong_call.input_tokens, strong_call.output_tokens) == (False, 7, 3)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_openai_client_is_a_back_end(asynchronous: bool) -> None:
    kind = openai.AsyncOpenAI if asynchronous else openai.OpenAI
    with OpenAIServer(lambda _: "I do not know") as weak, OpenAIServer(lambda _: "It is Paris") as strong:
        clients = [kind(api_key="none", base_url=server.url, max_retries=0) for server in (weak, strong)]
        back_ends = [from_client(client, "a-model", temperature=0.5) for client in clients]
        cascade = two(*back_ends, 0.1)
        chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Which city?"}]
        result = cascade.run(chat)
        assert (result.answer, models(result)) == ("It is Paris", ["weak", "strong"])
        assert [(call.input_tokens, call.output_tokens) for call in result.calls] == [(4, 4), (4, 3)]
        assert not any(call.estimated for call in result.calls)
        with cascade.stream(chat) as stream:
            assert list(stream) == ["It ", "is ", "Paris"]
        streamed = stream.result.calls[1]
        assert (streamed.input_tokens, streamed.output_tokens, streamed.estimated) == (4, 3, False)
        assert (weak.counts.calls, strong.counts.calls) == (2, 2)


def test_a_client_whose_async_nature_is_hidden_is_awaited() -> None:
    class Completions:
        def create(self, **options: Any) -> Any:  # no coroutine function, but gives an awaitable
            return self._create(**options)

        async def _create(self, **options: Any) -> Any:
            message = type("Message", (), {"content": options["messages"][0]["content"].upper()})
            return type("Reply", (), {"choices": [type("Choice", (), {"message": message})], "usage": None})

    client = type("Client", (), {"chat": type("Chat", (), {"completions": Completions()})})()
    assert two(from_client(client, "m"), Scripted()).run("hi").answer == "HI"


def test_a_server_error_of_a_real_client_escalates() -> None:
    def fail(prompt: str) -> str:
        raise RuntimeError("overloaded")

    with OpenAIServer(fail) as weak, OpenAIServer(lambda _: "fine") as strong:
        back_ends = [
            from_client(openai.OpenAI(api_key="none", base_url=server.url, max_retries=0), "m")
            for server in (weak, strong)
        ]
        result = two(*back_ends).run("hi")
        assert (result.answer, result.escalated, weak.counts.calls, strong.counts.calls) == ("fine", True, 1, 1)
        assert "InternalServerError" in (result.calls[0].error or "")


def test_usage_that_is_not_reported_is_estimated_and_marked() -> None:
    with OpenAIServer(lambda _: "12345678", usage=False) as server:
        back_end = from_client(openai.OpenAI(api_key="none", base_url=server.url), "m")
        [call] = two(back_end, Scripted()).run("a" * 41).calls
        assert (call.estimated, call.input_tokens, call.output_tokens) == (True, 11, 2)


def test_run_works_inside_a_running_loop() -> None:
    async def service() -> str:
        return two(Scripted("fine"), Scripted()).run("hi").answer

    assert asyncio.run(service()) == "fine"


def test_run_on_its_own_loop_is_refused_and_does_not_hang() -> None:
    errors: list[Exception] = []
    cascade: Cascade

    def hook(result: CascadeResult) -> None:
        try:
            cascade.run("again")
        except RoutelearnError as error:
            errors.append(error)

    cascade = two(Scripted(), Scripted(), on_result=hook)
    cascade.run("hi")
    assert "own event loop" in str(errors[0])


# The hook


def test_the_hook_sees_every_request_once_and_its_errors_are_not_the_requests(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[CascadeResult] = []

    def hook(result: CascadeResult) -> None:
        seen.append(result)
        raise RuntimeError("monitor down")

    assert two(Scripted("fine"), Scripted(), on_result=hook).run("hi").answer == "fine"
    with pytest.raises(CascadeError):
        two(Scripted(RuntimeError()), Scripted(RuntimeError()), on_result=hook).run("hi", use_case="legal")
    assert [result.outcome for result in seen] == ["answered", "failed"]
    assert seen[1].use_case == "legal"
    assert caplog.text.count("on_result raised") == 2


# The joint policy: router and use cases


def test_plainly_hard_queries_go_straight_to_strong_and_the_rest_is_verified() -> None:
    weak, strong, sure = Scripted("from weak"), Scripted("from strong"), Sure(0.9)
    cascade = two(weak, strong, sure, router=Scores(), direct_threshold=0.8)
    hard, easy = cascade.run("score 0.875"), cascade.run("score 0.25")
    assert (hard.model, hard.escalated, hard.score, models(hard)) == ("strong", False, 0.875, ["strong"])
    assert hard.reason == "strong answers: its score 0.88 is at or above 0.80"
    assert (easy.model, easy.score, sure.priors) == ("weak", 0.25, [0.25])


def test_when_strong_fails_on_a_hard_query_a_weaker_one_answers_marked() -> None:
    weak, strong, sure = Scripted("from weak"), Scripted(RuntimeError("down")), Sure(0.9)
    result = two(weak, strong, sure, router=Scores(), direct_threshold=0.8).run("score 0.875")
    assert (result.answer, result.degraded, result.escalated) == ("from weak", "failure", False)
    assert models(result) == ["strong", "weak"]
    assert not sure.priors  # nothing is verified: there is nowhere to escalate to
    with pytest.raises(CascadeError, match="no tier gave an answer"):
        two(Scripted(RuntimeError("down")), strong, sure, router=Scores(), direct_threshold=0.8).run("score 0.875")


@pytest.mark.parametrize("query", ["no number", "nan", "7"])
def test_a_router_that_fails_is_as_no_router(query: str) -> None:
    result = two(Scripted("from weak"), Scripted(), router=Scores(), direct_threshold=0.1).run(query)
    assert (result.model, result.score, result.confidence) == ("weak", None, 0.9)


def test_a_hard_query_is_not_sent_to_a_strong_that_cannot_finish_in_time() -> None:
    cascade = two(
        Scripted("from weak"),
        Scripted(),
        0.1,
        router=Scores(),
        direct_threshold=0.5,
        strong_settings={"expected_s": 50},
    )
    result = cascade.run("0.75", deadline_s=20)
    assert (result.answer, result.degraded) == ("from weak", "deadline")


def test_use_cases_have_rules_of_their_own() -> None:
    cascade = two(
        Scripted("from weak"),
        Scripted("from strong"),
        0.6,
        router=Scores(),
        use_cases={
            "medical": UseCase("cascade", threshold=0.9),
            "legal": UseCase("cascade", direct_threshold=0.3),
            "audit": UseCase("strong"),
            "chat": UseCase("weak"),
        },
        default_use_case=UseCase("route"),
    )

    def of(query: str, use_case: str | None) -> tuple[str, bool, float | None]:
        result = cascade.run(query, use_case=use_case)
        assert result.use_case == use_case
        return result.model, result.escalated, result.confidence

    assert of("0.25", "medical") == ("strong", True, None)  # 0.6 is below 0.9
    assert of("0.25", "legal") == ("weak", False, 0.6)
    assert of("0.5", "legal") == ("strong", False, None)
    assert of("0.1", "audit") == ("strong", False, None)
    assert of("0.9", "chat") == ("weak", False, None)
    assert of("0.5", "anything else") == ("weak", False, None)  # routed at the router's own threshold
    assert of("0.75", None) == ("strong", False, None)


def test_a_routed_weak_that_fails_escalates() -> None:
    cascade = two(Scripted(RuntimeError()), Scripted("from strong"), router=Scores(), default_use_case=UseCase("route"))
    result = cascade.run("0.1")
    assert (result.answer, result.escalated) == ("from strong", True)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Cascade([tier("strong", Scripted())]),
        lambda: Cascade([tier("weak", Scripted()), tier("strong", Scripted())]),
        lambda: Cascade([tier("weak", Scripted(), Sure(1.0)), tier("weak", Scripted())]),
        lambda: two(Scripted(), Scripted(), direct_threshold=0.5),
        lambda: two(Scripted(), Scripted(), use_cases={"a": UseCase("route")}),
        lambda: two(Scripted(), Scripted(), deadline_s=-1),
        lambda: two(Scripted(), Scripted(), max_cost_usd=-1),
        lambda: Cascade([Tier(Model("a"), Scripted(), Sure(1.0)), Tier(Model("b"), Scripted())], budget=Budget(1)),
        lambda: tier("weak", "no back end"),
        lambda: tier("weak", Scripted(), 0.5),
        lambda: tier("weak", Scripted(), timeout_s=0),
        lambda: tier("weak", Scripted(), expected_output_tokens=-1),
        lambda: UseCase("cheap"),  # type: ignore[arg-type]
        lambda: Budget(math.inf),
        lambda: Budget(1, window_s=0),
        lambda: from_client(object(), "m"),
    ],
)
def test_parts_that_do_not_fit_are_input_errors(make: Callable[[], object]) -> None:
    with pytest.raises(InputError, match=r"expected|need"):
        make()


# Properties

ANSWERS = st.sampled_from(["fine", RuntimeError("down")])
TIERS = st.lists(
    st.tuples(
        ANSWERS,
        st.floats(0, 1) | st.just(RuntimeError("unsure")),
        st.tuples(st.integers(0, 9999), st.integers(0, 9999)),
    ),
    min_size=2,
    max_size=4,
)


def build(tiers: list[Any], threshold: float, **settings: Any) -> tuple[Cascade, list[Scripted]]:
    back_ends = [Scripted(does, tokens=tokens) for does, _, tokens in tiers]
    made = [
        Tier(Model(f"m{i}", 2.0 + i, 5.0 + i), back_end, Sure(sure), threshold=threshold)
        for i, (back_end, (_, sure, _)) in enumerate(zip(back_ends, tiers, strict=True))
    ]
    return Cascade(made, **settings), back_ends


def outcome(cascade: Cascade) -> tuple[Any, CascadeResult]:
    seen: list[CascadeResult] = []
    cascade._on_result = seen.append
    try:
        raised = None
        cascade.run("hi")
    except CascadeError as error:
        raised = error
    [result] = seen
    return raised, result


@given(TIERS, st.floats(0, 1), st.none() | st.floats(0, 0.2))
def test_cost_is_the_sum_of_the_calls_and_nothing_is_lost_or_asked_twice(
    tiers: list[Any], threshold: float, max_cost_usd: float | None
) -> None:
    budget = Budget(1e6)
    cascade, back_ends = build(tiers, threshold, budget=budget, max_cost_usd=max_cost_usd)
    raised, result = outcome(cascade)
    assert result.cost_usd == math.fsum(call.cost_usd or 0.0 for call in result.calls)
    # The budget keeps what was reserved for a call that was sent and gave no answer.
    kept = sum(500 * (5.0 + int(call.model[1:])) / 1e6 for call in result.calls if call.error)
    assert result.cost_usd + kept == pytest.approx(budget.spent_usd)
    assert budget.reserved_usd == 0
    assert sorted(models(result)) == [f"m{i}" for i, back_end in enumerate(back_ends) if back_end.asked]
    assert all(len(back_end.asked) <= 1 for back_end in back_ends)
    for call in result.calls:
        i = int(call.model[1:])
        tokens = (1, 0) if call.error else tiers[i][2]
        assert (call.input_tokens, call.output_tokens) == tokens
        assert call.cost_usd == pytest.approx((tokens[0] * (2.0 + i) + tokens[1] * (5.0 + i)) / 1e6)
    assert (raised is None) == (result.outcome == "answered") == bool(result.answer)
    assert result.escalated == (len(result.calls) > 1)


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=12), st.lists(st.floats(0, 1.1), min_size=2, max_size=4).map(sorted)
)
def test_the_escalation_rate_rises_with_the_threshold(confidences: list[float], thresholds: list[float]) -> None:
    def rate(threshold: float) -> float:
        results = [
            two(Scripted(), Scripted(), sure, weak_settings={"threshold": threshold}).run("hi") for sure in confidences
        ]
        return sum(result.escalated for result in results) / len(results)

    rates = [rate(threshold) for threshold in thresholds]
    assert rates == sorted(rates)
    assert rate(0.0) == 0
    assert rate(1.01) == 1
