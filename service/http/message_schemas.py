"""The messages of a chat in the requests of the HTTP service, in the forms of the chat APIs."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict
from typing_extensions import NotRequired, TypedDict

from ...routers.messages import ASSISTANT

_IGNORE = ConfigDict(extra="ignore", strict=True)


class ResultPart(TypedDict):
    """A part of the result of a tool; routers read its text only."""

    __pydantic_config__ = _IGNORE  # type: ignore[misc]
    type: NotRequired[str]
    text: NotRequired[str | None]


class FunctionResponse(TypedDict):
    """What a tool replied, in a part of the Gemini API."""

    __pydantic_config__ = _IGNORE  # type: ignore[misc]
    response: NotRequired[dict[str, Any] | None]


class Part(TypedDict):
    """A part of a multimodal message; routers read its text only, and that of results of tools."""

    __pydantic_config__ = _IGNORE  # type: ignore[misc]
    type: NotRequired[str]
    text: NotRequired[str | None]
    content: NotRequired[str | Annotated[list[str | ResultPart], Field(fail_fast=True)] | None]
    functionResponse: NotRequired[FunctionResponse]
    functionCall: NotRequired[dict[str, Any] | None]
    name: NotRequired[str | None]
    input: NotRequired[Any]
    is_error: NotRequired[bool | None]


_Content = str | Annotated[list[str | Part], Field(fail_fast=True)] | None
#: A message says something: it has text in one of these fields, or it is an assistant's, who may only call tools.
_SAYS_SOMETHING: JsonDict = {
    "anyOf": [
        {"required": ["content"]},
        {"required": ["parts"]},
        {"required": ["value"]},
        {"required": ["output"]},
        {"required": ["role"], "properties": {"role": {"enum": [*sorted(ASSISTANT)]}}},
    ]
}
#: The field of ShareGPT that is a word of Python.
_ShareGPT = TypedDict("_ShareGPT", {"from": NotRequired[str]})


class Message(_ShareGPT):
    """A message of a chat, as in the APIs of OpenAI (chat, Responses), Anthropic and Gemini, or of ShareGPT.

    Other fields are ignored.
    """

    __pydantic_config__ = ConfigDict(  # type: ignore[misc]
        extra="ignore", strict=True, json_schema_extra=_SAYS_SOMETHING
    )
    role: NotRequired[str]
    content: NotRequired[
        Annotated[
            _Content,
            Field(description="Text, or a list of parts; null, or none from an assistant, stands for no text."),
        ]
    ]
    parts: NotRequired[Annotated[list[Part], Field(fail_fast=True, description="The content, in the Gemini API.")]]
    type: NotRequired[Annotated[str, Field(description="The kind of an item of the Responses API.")]]
    output: NotRequired[Annotated[_Content, Field(description="What a tool replied, in the Responses API.")]]
    value: NotRequired[Annotated[str, Field(description="The content, in ShareGPT.")]]
    tool_calls: NotRequired[
        Annotated[list[dict[str, Any]] | None, Field(description="Tools that the assistant calls.")]
    ]
    name: NotRequired[str | None]
    arguments: NotRequired[Annotated[str | None, Field(description="Of a call, in the Responses API.")]]
    status: NotRequired[str | None]
