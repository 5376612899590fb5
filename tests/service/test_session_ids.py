"""Which session a request belongs to."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routelearn.routers.errors import InputError
from routelearn.service import SessionNames

HI = {"role": "user", "content": "Plan a trip to Oslo."}
LATER = [HI, {"role": "assistant", "content": "Gladly."}, {"role": "user", "content": "And back?"}]
NAMES = SessionNames()


@pytest.mark.parametrize(
    ("request_", "headers", "source"),
    [
        ({"metadata": {"session_id": "s"}, "litellm_session_id": "t"}, {"x-session-id": "u"}, "metadata"),
        ({"litellm_metadata": {"session_id": "s"}}, {}, "metadata"),
        ({"litellm_session_id": "t", "prompt_cache_key": "p"}, {"X-Session-Id": "u"}, "header"),
        ({"prompt_cache_key": "p", "previous_response_id": "r"}, {}, "body"),
        ({"conversation": {"id": "conv_1"}, "input": "Hi"}, {}, "body"),
        ({"previous_response_id": "resp_1", "input": "Hi"}, {}, "response"),
        ({"messages": [HI], "user": "u-1"}, {}, "fingerprint"),
        ({"messages": [HI], "metadata": {"session_id": ""}}, {}, "fingerprint"),
        ({"messages": [HI], "metadata": {"session_id": True}}, {}, "fingerprint"),
    ],
)
def test_the_client_says_it_or_the_beginning_tells_it(
    request_: dict[str, Any], headers: dict[str, str], source: str
) -> None:
    found = NAMES.session_of(request_, headers)
    assert found is not None and found.source == source
    assert found == NAMES.session_of({**request_, "model": "other"}, headers)


def test_a_conversation_that_goes_on_has_the_session_that_it_began_with() -> None:
    first, later = NAMES.session_of({"messages": [HI]}), NAMES.session_of({"messages": LATER})
    assert first == later
    assert NAMES.session_of({}, query=LATER) == first
    assert NAMES.session_of({"messages": [{"role": "system", "content": "Be brief."}, *LATER]}) != first
    assert NAMES.session_of({"messages": LATER[2:]}) != first


def test_owners_have_no_session_in_common_and_ids_of_different_sources_never_meet() -> None:
    request_ = {"metadata": {"session_id": "1"}}
    assert NAMES.session_of(request_, owner="a") != NAMES.session_of(request_, owner="b")
    assert NAMES.session_of(request_) != NAMES.session_of({"prompt_cache_key": "1"})
    said = NAMES.session_of({"previous_response_id": "resp_1"}, owner="a")
    assert said == NAMES.session_of_response("resp_1", owner="a")


def test_the_user_is_a_session_where_that_is_asked_for_and_the_names_can_be_chosen() -> None:
    by_user = SessionNames(user=True, fingerprint=False)
    found = by_user.session_of({"user": "u-1", "messages": [HI]})
    assert found is not None and found.source == "user"
    assert by_user.session_of({"messages": [HI]}) is None
    own = SessionNames(metadata=["chat"], headers=["x-mine"], body=[])
    assert own.session_of({"metadata": {"chat": 7}}) is not None
    header = own.session_of({}, {"X-Mine": "h"})
    assert header is not None and header.source == "header"
    with pytest.raises(InputError, match="headers is 'x-mine'"):
        SessionNames(headers="x-mine")  # type: ignore[arg-type]


@given(st.recursive(st.none() | st.booleans() | st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["messages", "metadata", "session_id", "role", "content", "conversation", "id"]), inner)))  # fmt: skip  # noqa: E501
def test_nonsense_has_a_session_or_none_and_never_fails(content: Any) -> None:
    request_ = content if isinstance(content, dict) else {"messages": content}
    found = NAMES.session_of(request_)
    assert found is None or len(found.id) == 32
