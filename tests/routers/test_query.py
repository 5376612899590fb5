from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routelearn.routers.errors import InputError
from routelearn.routers.learned import LearnedRouter
from routelearn.routers.query import parse_messages, prompt_key, query_text, turns

JUNK = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda c: st.lists(c) | st.dictionaries(st.text(), c),
    max_leaves=8,
)
MESSAGE = st.fixed_dictionaries(
    {"content": st.text() | st.none() | st.lists(st.fixed_dictionaries({"text": st.text()}), max_size=3)},
    optional={"role": st.sampled_from(["user", "assistant", "system", "tool", "developer"])},
)


def chat(*turns: str) -> list[dict[str, str]]:
    return [{"role": "user" if i % 2 == 0 else "assistant", "content": text} for i, text in enumerate(turns)]


def test_a_chat_reads_newest_first() -> None:
    assert query_text(chat("one", "two", "three"), 100).text == "three\ntwo\none"


def test_a_budget_cuts_the_oldest_turns_and_says_so() -> None:
    text, truncated = query_text(chat("oldest " * 50, "middle", "newest"), 20)
    assert text.startswith("newest\nmiddle")
    assert len(text) == 20
    assert truncated


def test_one_turn_over_the_budget_keeps_both_ends() -> None:
    text, truncated = query_text("start " + "x" * 1000 + " the question?", 60)
    assert text.startswith("start")
    assert text.endswith("the question?")
    assert len(text) == 60
    assert truncated


def test_both_ends_of_a_chat_are_how_it_opens_and_how_it_ends() -> None:
    long = chat("opening " + "x" * 500, "middle", "the newest turn?")
    assert query_text(chat("one", "two"), 100, both_ends=True) == ("one\ntwo", False)
    text, truncated = query_text(long, 60, both_ends=True)
    assert (text.startswith("opening"), text.endswith("middle\nthe newest turn?")) == (True, True)
    assert (len(text), truncated) == (60, True)


def test_a_short_follow_up_inherits_the_conversation(router: LearnedRouter) -> None:
    hard = "Prove that a group of order 8 is solvable, and state every lemma you use."
    easy = "Say hello to Ana."
    follow_ups = router.score([chat(hard, "Here is the answer", "yes"), chat(easy, "Here is the answer", "yes"), "yes"])
    whole = router.score([hard, easy])
    assert (follow_ups[0] > follow_ups[1]) == (whole[0] > whole[1])
    assert abs(follow_ups[0] - whole[0]) < abs(follow_ups[2] - whole[0])


def test_multimodal_parts_keep_their_text() -> None:
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": "x"}}]
    assert query_text([{"role": "user", "content": parts}], 100).text == "What is this?"


def test_system_messages_count_only_alone() -> None:
    system = {"role": "system", "content": "Be brief."}
    assert query_text([system, {"role": "user", "content": "Hi"}], 100).text == "Hi"
    assert query_text([system], 100).text == "Be brief."


@pytest.mark.parametrize("role", [["user"], {"name": "user"}])
def test_a_role_that_is_no_text_is_an_input_error(role: object) -> None:
    with pytest.raises(InputError, match=r"message 1 of a chat has the role .*; expected a text"):
        turns([{"role": "user", "content": "Hi"}, {"role": role, "content": "there"}])


@given(st.text() | st.lists(MESSAGE, max_size=6) | JUNK, st.integers(2, 200))
def test_any_query_gives_text_within_the_budget_or_an_input_error(query: object, budget: int) -> None:
    try:
        text, truncated = query_text(query, budget)  # type: ignore[arg-type]
    except InputError:
        return
    assert isinstance(text, str)
    assert len(text) <= budget
    assert isinstance(truncated, bool)


@given(st.text())
def test_the_prompt_key_is_a_normal_form(text: str) -> None:
    key = prompt_key(text)
    assert prompt_key(f"  {text.replace(' ', '   ')}  ") == key
    assert prompt_key(key) == key.casefold() or key != key.casefold()


@given(JUNK | st.text())
def test_cells_that_are_no_chat_are_input_errors(cell: object) -> None:
    try:
        messages = parse_messages(cell)
    except InputError:
        return
    assert all("content" in message for message in messages)  # type: ignore[operator]


def test_a_chat_as_json_is_read() -> None:
    assert query_text(parse_messages('[{"role": "user", "content": "Hi"}]'), 10).text == "Hi"
    with pytest.raises(InputError, match="not JSON"):
        parse_messages("[{")
