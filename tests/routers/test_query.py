from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routelearn.routers.errors import InputError
from routelearn.routers.learned import LearnedRouter
from routelearn.routers.query import parse_messages, parse_query, prompt_key, query_text, split_answer, turns

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
    assert query_text(chat("one", "two", "three"), 100, both_ends=True) == ("one\ntwo\nthree", False)
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
    assert turns(messages) is not None


def test_a_chat_as_json_is_read() -> None:
    assert query_text(parse_messages('[{"role": "user", "content": "Hi"}]'), 10).text == "Hi"
    with pytest.raises(InputError, match="not JSON"):
        parse_messages("[{")


ASKED = [{"role": "user", "content": "How many people live in Bergen?"}]
RESULT = "290,000"
OPENAI = [*ASKED, {"role": "assistant", "content": None, "tool_calls": []}, {"role": "tool", "content": RESULT}]


class Pydantic:
    """What client libraries give: an object that dumps itself."""

    def __init__(self, message: dict[str, object]) -> None:
        self.message = message

    def model_dump(self) -> dict[str, object]:
        return self.message


@pytest.mark.parametrize(
    "chat",
    [
        [*ASKED, {"role": "assistant", "tool_calls": []}, {"role": "tool", "content": RESULT}],
        [*ASKED, {"role": "assistant", "function_call": {}}, {"role": "function", "content": RESULT}],
        [*ASKED, {"role": "assistant", "audio": {"id": "1"}}, {"role": "tool", "content": [{"text": RESULT}]}],
        [*ASKED, {"role": "user", "content": [{"type": "tool_result", "content": RESULT}]}],
        [*ASKED, {"role": "user", "content": [{"type": "tool_result", "content": [{"type": "text", "text": RESULT}]}]}],
        [*ASKED, {"type": "function_call", "name": "f"}, {"type": "function_call_output", "output": RESULT}],
        [{"role": "user", "parts": [{"text": ASKED[0]["content"]}]},
         {"role": "function", "parts": [{"functionResponse": {"name": "f", "response": {"result": RESULT}}}]}],
        [{"from": "human", "value": ASKED[0]["content"]}, {"from": "observation", "value": RESULT}],
        [{"type": "human", "content": ASKED[0]["content"]}, {"type": "tool", "content": RESULT}],
        [Pydantic(message) for message in OPENAI],
        [*OPENAI, {"role": "assistant", "content": [{"type": "thinking", "thinking": "..."}]}, *OPENAI[2:]][:3],
    ],
)  # fmt: skip
def test_one_conversation_reads_alike_in_every_form(chat: list[dict[str, object]]) -> None:
    assert turns(chat) == turns(OPENAI) == [ASKED[0]["content"], RESULT]


@pytest.mark.parametrize("role", ["assistant", "gpt", "model", "Assistant"])
def test_an_answer_at_the_end_of_a_chat_is_not_read(role: str) -> None:
    answer = {"role": role, "content": "THE ANSWER"}
    assert turns([*ASKED, answer]) == turns(ASKED)
    assert turns([*OPENAI, answer]) == turns(ASKED)
    assert turns([*ASKED, answer, *ASKED]) == [ASKED[0]["content"], "THE ANSWER", ASKED[0]["content"]]
    assert prompt_key([*ASKED, answer]) == prompt_key(ASKED)
    assert split_answer([*ASKED, answer, answer]) == (ASKED, "THE ANSWER\nTHE ANSWER")
    assert split_answer(ASKED) == (ASKED, None)
    assert turns([answer]) == ["THE ANSWER"]


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        ("Hi", ["Hi"]),
        ('["Hi", "again"]', ["Hi", "again"]),
        ('["Hi"]', ["Hi"]),
        ("[INST] Hi", ["[INST] Hi"]),
        ("[1, 2] sort this", ["[1, 2] sort this"]),
        ("[1, 2]", ["[1, 2]"]),
        (["Hi", None], ["Hi"]),
        ({"role": "user", "content": "Hi"}, ["Hi"]),
        ({"contents": [{"parts": [{"text": "Hi"}]}]}, ["Hi"]),
        ({"model": "x", "input": [{"role": "user", "content": [{"type": "input_text", "text": "Hi"}]}]}, ["Hi"]),
    ],
)
def test_queries_are_read_as_files_and_requests_hold_them(value: object, texts: list[str]) -> None:
    assert turns(parse_query(value)) == texts


@given(JUNK | st.text())
def test_any_value_is_a_query_or_an_input_error(value: object) -> None:
    try:
        query = parse_query(value)
    except InputError:
        return
    assert all(isinstance(text, str) for text in turns(query))
