"""The states of sessions: what is written is read again, and nothing else is taken for a state."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routelearn.policies.session_state import MemorySessions, SessionState

FINITE = st.floats(allow_nan=False, allow_infinity=False)
COUNTS = st.integers(0, 10**12)
STATES = st.builds(
    SessionState,
    model=st.text(),
    score=FINITE,
    source=st.sampled_from(["learned", "rules", "general", "default"]),
    seen=FINITE,
    requests=COUNTS,
    scored=COUNTS,
    score_sum=FINITE,
    context=COUNTS,
    read=st.dictionaries(st.text(), st.tuples(COUNTS, FINITE), max_size=4),
    escalated=st.text(),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=12) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(STATES)
def test_a_state_is_read_as_it_was_written(state: SessionState) -> None:
    assert SessionState.from_json(state.as_json()) == state
    assert SessionState.from_json(state.as_json().encode()) == state


@given(st.binary() | JSON.map(json.dumps))
def test_whatever_is_no_state_is_refused_without_an_error(text: str | bytes) -> None:
    state = SessionState.from_json(text)
    assert state is None or SessionState.from_json(state.as_json()) == state or state.score != state.score


@given(STATES, st.integers(0, 9), JSON)
def test_a_state_with_one_odd_field_is_read_soundly_or_not_at_all(state: SessionState, place: int, odd: object) -> None:
    fields = json.loads(state.as_json())
    fields[place] = odd
    read = SessionState.from_json(json.dumps(fields))
    if read is not None:
        assert isinstance(read.model, str)
        assert isinstance(read.seen + read.score + read.requests + read.scored + read.score_sum, (int, float))
        assert min(read.requests, read.scored, read.context) >= 0
        assert all(isinstance(tokens + when, float) for tokens, when in read.read.values())


def test_a_state_of_a_version_with_fewer_fields_is_read() -> None:
    state = SessionState("m", 0.4, "learned", 1.0, 3)
    fields = json.loads(state.as_json())
    assert SessionState.from_json(json.dumps(fields[:5])) == state
    assert SessionState.from_json(json.dumps([*fields, "of a newer version"])) is None


@pytest.mark.parametrize("place", [4, 5, 7])
@pytest.mark.parametrize("odd", [-1, 1.5, float("inf"), float("nan")])
def test_a_state_whose_counts_cannot_be_is_refused(place: int, odd: float) -> None:
    fields = json.loads(SessionState("m", 0.4, "learned", 1.0, 3, 2, 0.8, 2000).as_json())
    fields[place] = odd
    assert SessionState.from_json(json.dumps(fields)) is None


def test_a_change_that_raises_leaves_the_session_as_it_was() -> None:
    store = MemorySessions()
    store.update("a", 0.0, lambda _: SessionState("m", 0.4, "learned", 0.0))

    def broken(state: SessionState | None) -> SessionState:
        assert state is not None
        state.model = "other"
        raise RuntimeError("in a change")

    with pytest.raises(RuntimeError, match="in a change"):
        store.update("a", 0.0, broken)
    assert store.update("a", 0.0, lambda state: state or SessionState("new", 0.0, "rules", 0.0)).model == "m"


def test_sessions_are_forgotten_after_their_silence_and_beyond_the_bound() -> None:
    store = MemorySessions(max_sessions=3, ttl_s=10)

    def at(key: str, now: float) -> int:
        return store.update(
            key, now, lambda old: SessionState("m", 0.0, "rules", now, 1 + (old.requests if old else 0))
        ).requests

    assert [at("a", 0), at("b", 5), at("a", 9), at("c", 9)] == [1, 1, 2, 1]
    assert [at("b", 15), at("a", 19.5), at("a", 21)] == [2, 1, 2]  # a was silent for 10.5 s
    assert [at("d", 21), at("e", 21)] == [1, 1]
    assert store.as_dict() == {"sessions": 3, "evicted": 1, "expired": 2}
