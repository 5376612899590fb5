"""A request of an agent is a user's turn or a step within one, in the form of every provider."""

from __future__ import annotations

import json
from typing import Any

import pytest

from routelearn.policies import AgentRules, AgentTurn, agent_turn_of

QUESTION = {"role": "user", "content": "Fix the parser."}
REMINDER = "<system-reminder>Your todo list is empty.</system-reminder>"
DETAILS = "<environment_details>\n# VSCode Open Tabs\nx.py\n</environment_details>"
ARGUMENTS = {"path": "x.py", "limit": 10}
Request = dict[str, Any]


def openai(result: str = "done", name: str = "read_file", arguments: object = ARGUMENTS) -> list[Request]:
    call = {"id": "c1", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
    return [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": result},
    ]


def legacy(result: str = "done") -> list[Request]:
    return [
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": result},
    ]


def anthropic(result: Any = "done", *, is_error: bool = False, beside: str | None = None) -> list[Request]:
    answer = {"type": "tool_result", "tool_use_id": "t1", "content": result, "is_error": is_error}
    texts = [] if beside is None else [{"type": "text", "text": beside}]
    return [
        {"role": "assistant", "content": [{"type": "text", "text": "I look."},
            {"type": "tool_use", "id": "t1", "name": "Read", "input": ARGUMENTS}]},
        {"role": "user", "content": [answer, *texts]},
    ]  # fmt: skip


def gemini(response: Any = None) -> list[Request]:
    reply = {"name": "read_file", "response": response or {"output": "done"}}
    return [
        {"role": "model", "parts": [{"functionCall": {"name": "read_file", "args": ARGUMENTS}}]},
        {"role": "user", "parts": [{"functionResponse": reply}]},
    ]


def responses(output: Any = "done", kind: str = "function_call", **more: Any) -> list[Request]:
    return [
        {"type": "reasoning", "summary": []},
        {"type": kind, "call_id": "c1", "name": "shell", "arguments": json.dumps(ARGUMENTS)},
        {"type": f"{kind}_output", "call_id": "c1", "output": output, **more},
    ]


def bedrock(status: str = "success") -> list[Request]:
    result = {"toolUseId": "b1", "content": [{"text": "done"}], "status": status}
    return [
        {"role": "assistant", "content": [{"toolUse": {"toolUseId": "b1", "name": "read", "input": ARGUMENTS}}]},
        {"role": "user", "content": [{"toolResult": result}]},
    ]


def cline(result: str, call: str = "<read_file>\n<path>x.py</path>\n</read_file>") -> list[Request]:
    texts = [f"[read_file for 'x.py'] Result:\n{result}", DETAILS]
    return [
        {"role": "assistant", "content": f"I look at it.\n\n{call}"},
        {"role": "user", "content": [{"type": "text", "text": text} for text in texts]},
    ]


STEPS = {
    "openai": (openai(), "messages"),
    "openai legacy function": (legacy(), "messages"),
    "anthropic": (anthropic(), "messages"),
    "anthropic with a reminder": (anthropic(beside=REMINDER), "messages"),
    "cline with native calls": (anthropic(beside=DETAILS), "messages"),
    "cline": (cline("def f(): ..."), "messages"),
    "gemini": (gemini(), "contents"),
    "responses": (responses(), "input"),
    "responses, custom tool": (responses(kind="custom_tool_call"), "input"),
    "responses, shell": (
        responses([{"stdout": "x", "outcome": {"type": "exit", "exit_code": 0}}], "shell_call"),
        "input",
    ),
    "bedrock": (bedrock(), "messages"),
    "openhands": (
        [
            {"role": "assistant", "content": "<function=execute_bash>\n<parameter=command>ls</parameter>\n</function>"},
            {"role": "user", "content": "EXECUTION RESULT of [execute_bash]:\nx.py"},
        ],
        "messages",
    ),
}


@pytest.mark.parametrize("form", STEPS)
def test_what_follows_a_tool_call_is_a_step(form: str) -> None:
    items, field = STEPS[form]
    assert agent_turn_of({field: [QUESTION, *items]}) == AgentTurn("step", failures=0, repeats=1)
    assert agent_turn_of({field: [QUESTION, *items, {"role": "user", "content": REMINDER}]}).kind == "step"


@pytest.mark.parametrize("form", STEPS)
def test_the_users_next_words_begin_a_turn(form: str) -> None:
    items, field = STEPS[form]
    done = {"role": "assistant", "content": "It is fixed."}
    assert agent_turn_of({field: [QUESTION, *items, done, {"role": "user", "content": "Thanks, now test it."}]}) == (
        AgentTurn("user")
    )
    assert agent_turn_of({field: [QUESTION, *items, {"role": "user", "content": "Stop, use tabs."}]}).kind == "user"


@pytest.mark.parametrize(
    "request_",
    [
        {"messages": [QUESTION]},
        {"messages": [{"role": "system", "content": "You are an agent."}, QUESTION]},
        {"prompt": "Fix the parser."},
        {"prompt": ["Fix", "the parser."]},
        {"input": "Fix the parser."},
        {"contents": {"role": "user", "parts": [{"text": "Fix the parser."}]}},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]},
        {"messages": [{"role": "user", "content": REMINDER}]},
        {"messages": [QUESTION, {"role": "assistant", "content": "{"}]},
        {"messages": [QUESTION, *anthropic(beside="No, keep the old name.")]},
        {"messages": [QUESTION, *anthropic("The user denied this operation and provided the following feedback:\n"
                                           "<feedback>\nUse tabs.\n</feedback>")]},
        {"messages": [QUESTION, *anthropic("The user doesn't want to proceed with this tool use. It was rejected. To "
                                           "tell you how to proceed, the user said:\nUse tabs.", is_error=True)]},
        {"messages": [QUESTION, *anthropic("User has answered your questions: \"Which?\"=\"The first\"")]},
        {"messages": [QUESTION, *openai("The user has provided feedback.\n<feedback>\nUse tabs.\n</feedback>")]},
        {"messages": [QUESTION, *openai()[:1], {"role": "user", "content":
                      f"[ask_followup_question for 'Which?'] Result:\n<answer>\nThe first.\n</answer>\n{DETAILS}"}]},
        {"messages": [{"role": "user", "content": f"<task>\nFix the parser.\n</task>\n{DETAILS}"}]},
        {"messages": []},
        {},
    ],
)  # fmt: skip
def test_the_words_of_a_user_are_a_users_turn(request_: Request) -> None:
    assert agent_turn_of(request_) == AgentTurn("user")


def test_a_request_that_goes_on_from_a_response_is_a_step() -> None:
    request = {"previous_response_id": "r1", "input": [{"type": "function_call_output", "call_id": "1", "output": "x"}]}
    assert agent_turn_of(request) == AgentTurn("step")


@pytest.mark.parametrize(
    ("items", "field"),
    [
        (openai("Error: no such file"), "messages"),
        (legacy("Traceback (most recent call last):\n  File x"), "messages"),
        (anthropic("No.", is_error=True), "messages"),
        (
            anthropic([{"type": "text", "text": "<tool_use_error>File has not been read yet.</tool_use_error>"}]),
            "messages",
        ),
        (gemini({"error": "File not found"}), "contents"),
        (responses(json.dumps({"output": "x", "metadata": {"exit_code": 2}})), "input"),
        (responses("x", status="incomplete"), "input"),
        (responses([{"stdout": "", "outcome": {"type": "exit", "exit_code": 1}}], "shell_call"), "input"),
        (bedrock("error"), "messages"),
        (cline("The tool execution failed with the following error:\n<error>\nNo such file\n</error>"), "messages"),
    ],
)
def test_failing_steps_are_counted_in_every_form(items: list[Request], field: str) -> None:
    assert agent_turn_of({field: [QUESTION, *items]}).failures == 1
    turn = agent_turn_of({field: [QUESTION, *items * 3]})
    assert turn == AgentTurn("step", failures=3, repeats=3)
    assert AgentRules().loops(turn) == "3 steps in a row whose tool calls failed"
    new_words = {"role": "user", "content": "Try the other file."}
    assert agent_turn_of({field: [QUESTION, *items * 3, new_words, *items]}).failures == 1


def test_a_step_that_works_ends_the_row() -> None:
    fails, works = openai("Error: x"), openai("x")
    assert agent_turn_of({"messages": [QUESTION, *fails, *fails, *works]}).failures == 0
    assert agent_turn_of({"messages": [QUESTION, *fails, *works, *fails, *fails]}).failures == 2


def test_a_call_that_the_user_refused_has_not_failed() -> None:
    refused = anthropic(
        "The user doesn't want to proceed with this tool use. The tool use was rejected.", is_error=True
    )
    assert agent_turn_of({"messages": [QUESTION, *refused]}) == AgentTurn("step", failures=0, repeats=1)


def test_calls_made_at_once_are_one_step() -> None:
    calls = [{"type": "tool_use", "id": str(number), "name": "Read", "input": {"n": number}} for number in range(4)]
    results = [{"type": "tool_result", "tool_use_id": str(number), "is_error": True} for number in range(4)]
    messages = [QUESTION, {"role": "assistant", "content": calls}, {"role": "user", "content": results}]
    assert agent_turn_of({"messages": messages}) == AgentTurn("step", failures=1, repeats=1)
    results[2] = {"type": "tool_result", "tool_use_id": "2", "content": "found"}
    assert agent_turn_of({"messages": messages}).failures == 0


def steps(*names: str) -> list[Request]:
    return [item for name in names for item in openai(name=name)]


@pytest.mark.parametrize(
    ("names", "repeats"),
    [
        ("a", 1),
        ("ab", 1),
        ("aa", 2),
        ("baaa", 3),
        ("abab", 2),
        ("cababab", 3),
        ("aba", 1),
        ("abcabcabc", 3),
        ("aab", 1),
    ],
)
def test_repeated_calls_are_counted_in_a_row_and_in_cycles(names: str, repeats: int) -> None:
    turn = agent_turn_of({"messages": [QUESTION, *steps(*names)]})
    assert turn.repeats == repeats
    looping = AgentRules().loops(turn)
    assert looping == (f"the same tool calls {repeats} times in a row" if repeats >= 3 else None)


def test_arguments_are_compared_by_value() -> None:
    one, other = openai(), openai(arguments=dict(reversed(ARGUMENTS.items())))
    assert agent_turn_of({"messages": [QUESTION, *one, *other]}).repeats == 2
    assert agent_turn_of({"messages": [QUESTION, *one, *openai(arguments={"path": "y.py"})]}).repeats == 1
    assert agent_turn_of({"messages": [QUESTION, *one, *openai(arguments="not JSON")]}).repeats == 1


def test_calls_in_the_text_of_a_model_are_compared_by_the_call() -> None:
    one, other = cline("x"), cline("x", "<read_file>\n<path>y.py</path>\n</read_file>")
    again = [{"role": "assistant", "content": "Again.\n\n<read_file>\n<path>x.py</path>\n</read_file>"}, one[1]]
    assert agent_turn_of({"messages": [QUESTION, *one, *again]}).repeats == 2
    assert agent_turn_of({"messages": [QUESTION, *one, *other]}).repeats == 1


def test_waiting_is_no_repeat() -> None:
    assert (
        agent_turn_of({"messages": [QUESTION, *steps("build", "BashOutput", "BashOutput", "BashOutput")]}).repeats == 1
    )
    rules = AgentRules(polling=[])
    turn = agent_turn_of({"messages": [QUESTION, *steps("build", "BashOutput", "BashOutput", "BashOutput")]}, rules)
    assert turn.repeats == 3


def test_a_long_loop_is_counted_as_far_as_one_looks_back() -> None:
    assert agent_turn_of({"messages": [QUESTION, *steps(*"ab" * 50)]}).repeats == 50
    turn = agent_turn_of({"messages": [QUESTION, *openai("Error: x") * 1000]})
    assert turn.failures == turn.repeats == 200


def test_the_limits_can_be_set() -> None:
    turn = agent_turn_of({"messages": [QUESTION, *openai("Error: x") * 2]})
    assert AgentRules().loops(turn) is None
    assert AgentRules(max_failures=2).loops(turn) == "2 steps in a row whose tool calls failed"
    assert AgentRules(max_repeats=2).loops(turn) == "the same tool calls 2 times in a row"
