"""Housekeeping requests of clients are told from a user's own, by rule."""

from __future__ import annotations

from typing import Any

import pytest

from routelearn.policies import AgentRules, AgentTurn, agent_turn_of
from routelearn.policies.agent_lists import HOUSEKEEPING

HISTORY = "### Chat History:\n<chat_history>\nUSER: Why is the sky blue?\nASSISTANT: Rayleigh.\n</chat_history>"
CODE = "You are Claude Code, Anthropic's official CLI for Claude."


def user(*contents: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content} for content in contents]


def chat(system: str, *contents: Any) -> dict[str, Any]:
    return {"messages": [{"role": "system", "content": system}, *user(*contents)]}


CASES: list[tuple[str, dict[str, Any]]] = [
    (
        "topic",
        {
            "system": [
                {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1"},
                {"type": "text", "text": "Analyze if this message indicates a new conversation topic. If it does, ..."},
            ],
            "messages": user("fix the parser"),
        },
    ),
    (
        "title",
        {
            "system": [
                {"type": "text", "text": CODE},
                {"type": "text", "text": "You are naming a coding session so the user can pick it out of a long list."},
            ],
            "messages": user([{"type": "text", "text": "<session>\nhi\n</session>\n\nWrite the title"}]),
        },
    ),
    ("title", {"messages": user("Please write a 5-10 word title for the following conversation:\n\nUser: hi")}),
    ("title", chat("Summarize this coding conversation in under 50 characters.\nCapture the main task", "hi")),
    (
        "summary",
        {"system": CODE, "messages": [*user("fix it"), {"role": "assistant", "content": "Done."},
            *user("Your task is to create a detailed summary of the conversation so far, paying close attention")]},
    ),
    (
        "summary",
        {"messages": user([{"type": "text", "text": "<system-reminder>x</system-reminder>"},
            {"type": "text", "text": "CRITICAL: Respond with TEXT ONLY. Do NOT call any tools.\n\nYour task is"}])},
    ),
    ("summary", {"messages": user("<system-reminder>x</system-reminder>\nYour task is to create a detailed summary of "
        "this conversation. This summary will")}),
    ("summary", {"instructions": "You are Codex",
        "input": user("You are performing a CONTEXT CHECKPOINT COMPACTION. Create")}),
    ("summary", {"systemInstruction": {"parts": [{"text": "\nYou are the component that summarizes internal chat "
        "history into a given structure."}]}, "contents": [{"role": "user", "parts": [{"text": "First, reason."}]}]}),
    ("suggestions", {"messages": user("[SUGGESTION MODE: Suggest what the user might naturally type next]")}),
    ("title", chat("You are a title generator. You output ONLY a thread title. Nothing else.",
        "Generate a title for this conversation:\n", "Why is the sky blue?")),
    ("title", chat("You are an expert in crafting pithy titles for chatbot conversations. You are presented", "hi")),
    ("summary", chat("*Briefly* summarize this partial conversation about programming.\nInclude less", "# USER\nx")),
    ("title", {"messages": user(f"### Task:\nGenerate a concise, 3-5 word title with an emoji summarizing the chat "
        f"history.\n### Guidelines:\n- x\n### Output:\nJSON format: {{ \"title\": \"x\" }}\n{HISTORY}")}),
    ("title", {"messages": user(f"### Task:\nGenerate a concise title summarizing the chat history.\n{HISTORY}")}),
    ("tags", {"messages": user(f"### Task:\nGenerate 1-3 broad tags categorizing the main themes of the chat history, "
        f"along with 1-3 more\n{HISTORY}")}),
    ("suggestions", {"messages": user(f"### Task:\nSuggest 3-5 relevant follow-up questions or prompts\n{HISTORY}")}),
    ("query", {"messages": user("### Task:\nAnalyze the chat history to determine the necessity of generating search "
        "queries, in the given language.")}),
    ("autocomplete", {"messages": user("### Task:\nYou are an autocompletion system. Continue the text in `<text>`")}),
    ("title", {"messages": user("Why is the sky blue?", "Provide a concise, 5-word-or-less title for the conversation, "
        "using title case conventions. Only return the title itself.\n\nConversation:\nUser: hi")}),
    ("title", {"messages": user("Please generate a four to five word title summarizing our conversation without any "
        "lead-in, punctuation")}),
    ("title", {"prompt": f"Create a short title for this conversation.\n{HISTORY}"}),
    ("title", chat('You are a chat title generator for a thread of a chat.\nAnswer as {"title": "..."}', "Hello")),
    ("probe", {"messages": user("quota"), "max_tokens": 1}),
    ("probe", {"messages": user([{"type": "text", "text": "Warmup"}]), "max_tokens": 32000}),
    ("marked", {"messages": user("Why is the sky blue?"), "metadata": {"routelearn_housekeeping": True}}),
    ("marked", {"messages": user("Why is the sky blue?"), "litellm_metadata": {"routelearn_housekeeping": "on"}}),
]  # fmt: skip


@pytest.mark.parametrize(("why", "request_"), CASES)
def test_what_clients_send_for_themselves_is_housekeeping(why: str, request_: dict[str, Any]) -> None:
    assert agent_turn_of(request_) == AgentTurn("housekeeping", why=why)


@pytest.mark.parametrize(
    "text",
    [
        "Write a title for my essay",
        "Generate a concise title for my essay about chat bots.",
        "Generate a short title for a YouTube video about our conversation skills",
        "Please summarize the following conversation between Ana and Bo: Ana said no, Bo said yes.",
        "Summarize the conversation of Romeo and Juliet in act two.",
        "### Task:\nRespond to the user query using the provided context, incorporating inline citations.",
        "Summarize the following conversation.\n<conversation>\nA: I want my money back.\n</conversation>",
        "Generate a detailed summary of this conversation.",
        "### Task:\nGenerate a concise title for my essay",
        "### Task:\nGenerate a function that sorts tags.",
        "What does 'Your task is to create a detailed summary of the conversation so far' do in Claude Code?",
        "Suggest five tags for my photo",
        "quota",
        "hi",
        "Create a title generator in Python that prints {\"title\": \"x\"}",
        "You are a title generator for my videos. Topic: cats",
    ],
)  # fmt: skip
def test_a_persons_own_request_is_none(text: str) -> None:
    for request in ({"messages": user(text)}, {"prompt": text}, {"input": text}, chat("You are helpful.", text)):
        assert agent_turn_of(request) == AgentTurn("user")


def test_a_judge_with_one_token_is_no_probe() -> None:
    asked = user("Is this review kind? Answer yes or no: lovely place, would come again")
    assert agent_turn_of({"messages": asked, "max_tokens": 1}).kind == "user"


def test_an_application_that_writes_titles_is_none() -> None:
    request = chat("You are a title generator for a news site. Write one headline.", "A cat was saved from a tree.")
    assert agent_turn_of(request).kind == "user"


def test_only_the_last_turn_counts() -> None:
    summary = "Your task is to create a detailed summary of the conversation so far, paying close attention to"
    messages = [*user(summary), {"role": "assistant", "content": "<summary>x</summary>"}, *user("Go on.")]
    assert agent_turn_of({"messages": messages}).kind == "user"


def test_the_client_can_say_that_a_request_is_none() -> None:
    request = {"messages": user("### Task:\nGenerate a concise title of the chat"), "metadata": {}}
    assert agent_turn_of(request).kind == "housekeeping"
    request["metadata"] = {"routelearn_housekeeping": "off"}
    assert agent_turn_of(request).kind == "user"


def test_the_list_can_be_extended() -> None:
    rules = AgentRules(housekeeping=[*HOUSEKEEPING, ("greeting", r"Greet the user\b")])
    assert agent_turn_of(chat("Greet the user by name.", "Ana"), rules).why == "greeting"
    assert agent_turn_of(chat("Greet the user by name.", "Ana")).kind == "user"
    assert agent_turn_of({"messages": user("Warmup")}, AgentRules(housekeeping=[])).why == "probe"
