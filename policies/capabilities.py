"""What a request needs of a model, which models lack it, and the decision among those that do not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..routers.checks import as_number
from ..routers.decision import Decision, Model
from ..routers.messages import as_mapping
from ..routers.query import CHARACTERS_PER_TOKEN

#: The `Decision.cause` when the decision's model cannot serve the request and another one can, and when none can.
SKIPPED, UNABLE = "skipped", "unable"
#: Bytes of text that count as a token: few, because a request that is too long fails. English has some 4 to 5.
BYTES_PER_TOKEN = 3
#: Tokens that an image counts as. (OpenAI counts up to 1,105 for a large one, Anthropic up to 1,600.)
IMAGE_TOKENS = 1600
#: Fields of requests that hold messages or prompts, and those with the instructions beside them.
_CONTENT = (
    *("messages", "input", "contents", "prompt", "system", "instructions", "systemInstruction"),
    *("tools", "functions"),
)
#: Fields that limit the length of the answer.
_OUTPUT_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "maxOutputTokens")
#: Words in the type of a part, and in a media type, by the ability that it needs.
_PARTS = {
    "vision": frozenset({"image_url", "input_image", "image", "computer_screenshot"}),
    "audio": frozenset({"input_audio", "audio", "audio_url"}),
    "files": frozenset({"file", "input_file", "document", "file_url"}),
}
_MEDIA = {"image": "vision", "audio": "audio", "application": "files", "video": "vision"}
#: Fields of a Gemini part with media, and the fields that a part with media has one of.
_INNER = ("inlineData", "inline_data", "fileData", "file_data")
_PART_FIELDS = frozenset({"type", *_INNER})
#: Content is not read deeper than this; no API nests deeper.
_DEEPEST = 12


@dataclass(frozen=True, slots=True)
class Needs:
    """What a request needs of a model.

    Attributes:
        input_tokens: tokens that the model has to read, estimated so that it is rarely too few.
        output_tokens: tokens that the request lets it write; None: the request does not say.
        vision: the request holds an image.
        audio: it holds audio, or asks for audio.
        files: it holds a file, such as a PDF.
        tools: it offers tools.
        json_schema: it asks for an answer by a JSON schema.

    Example:
        >>> from routelearn.policies import needs_of
        >>> part = {"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}}
        >>> needs = needs_of({"messages": [{"role": "user", "content": [part]}], "max_tokens": 50})
        >>> needs.vision, needs.tools, needs.output_tokens
        (True, False, 50)
    """

    input_tokens: int = 0
    output_tokens: int | None = None
    vision: bool = False
    audio: bool = False
    files: bool = False
    tools: bool = False
    json_schema: bool = False

    @property
    def expected_tokens(self) -> int:
        """The input tokens as they are counted for costs: fewer than `input_tokens`, which errs on the safe side."""
        return self.input_tokens * BYTES_PER_TOKEN // CHARACTERS_PER_TOKEN


def needs_of(request: Mapping[str, Any]) -> Needs:
    """Read what a request needs: a body of OpenAI's chat, Responses or completions API, of Anthropic's, or of Gemini's.

    Whatever cannot be read needs nothing.

    Args:
        request: the body.
    """
    found = _Found()
    for field in _CONTENT:
        found.read(request.get(field), 0)
    modalities = request.get("modalities")
    audio = isinstance(modalities, Sequence) and "audio" in modalities
    return Needs(
        input_tokens=-(-found.text_bytes // BYTES_PER_TOKEN) + found.images * IMAGE_TOKENS,
        output_tokens=_output_tokens(request),
        vision="vision" in found.abilities,
        audio="audio" in found.abilities or audio,
        files="files" in found.abilities,
        tools=bool(request.get("tools") or request.get("functions")),
        json_schema=_asks_for_schema(request),
    )


def lacking(model: Model, needs: Needs) -> list[str]:
    """What a model lacks of what a request needs, in words; empty: nothing, as far as is known.

    Example:
        >>> from routelearn import Model
        >>> from routelearn.policies import Needs, lacking
        >>> lacking(Model("small", max_input_tokens=8000, vision=False), Needs(input_tokens=9000, vision=True))
        ['it reads no images', 'it reads at most 8,000 tokens, and the request has some 9,000']
    """
    words = {
        "vision": "it reads no images",
        "audio": "it reads no audio",
        "files": "it reads no files",
        "tools": "it calls no tools",
        "json_schema": "it answers by no JSON schema",
    }
    found = [text for name, text in words.items() if getattr(needs, name) and getattr(model, name) is False]
    if model.max_input_tokens is not None and needs.input_tokens > model.max_input_tokens:
        found.append(
            f"it reads at most {model.max_input_tokens:,} tokens, and the request has some {needs.input_tokens:,}"
        )
    if model.max_output_tokens is not None and (needs.output_tokens or 0) > model.max_output_tokens:
        found.append(
            f"it writes at most {model.max_output_tokens:,} tokens, and the request asks for up to "
            f"{needs.output_tokens:,}"
        )
    return found


def among_able(decision: Decision, pool: Sequence[Model], needs: Needs, strong: str) -> Decision:
    """The decision among the models that can serve a request.

    Args:
        decision: the router's decision.
        pool: the models, with what they can do.
        needs: what the request needs.
        strong: the model that answers where none is able.

    Returns:
        The decision without the candidates that lack something; its reason names them. Where all of them do, the
        decision is for `strong`, with the cause "unable" and a reason that names what is missing.
    """
    known = {model.name: model for model in pool}
    missing = {name: lacking(known[name], needs) for name in decision.candidates if name in known}
    unable = {name: words for name, words in missing.items() if words}
    if not unable:
        return decision
    said = "; ".join(f"{name}: {', '.join(words)}" for name, words in unable.items())
    able = tuple(name for name in decision.candidates if name not in unable)
    if not able:
        return decision.instead(strong, UNABLE, f"no model of the pool can serve this request: {said}")
    targets = tuple(name for name in decision.targets if name in able)
    if decision.model in able:
        return replace(
            decision,
            candidates=able,
            reason=f"{decision.reason}; skipped {said}",
            # The only one that is able answers whatever was drawn.
            propensity=1.0 if len(able) == 1 else decision.propensity,
            targets=targets,
        )
    return replace(
        decision,
        model=able[0],
        candidates=able,
        cause=SKIPPED,
        reason=f"{decision.reason}; skipped {said}",
        propensity=1.0,
        targets=targets,
    )


def says_something(pool: Sequence[Model]) -> bool:
    """Whether the pool says of any model what it cannot do; where it does not, needs need not be read."""
    return any(
        model.max_input_tokens is not None
        or model.max_output_tokens is not None
        or False in (model.vision, model.audio, model.files, model.tools, model.json_schema)
        for model in pool
    )


class _Found:
    """What was found in the content of a request."""

    def __init__(self) -> None:
        self.text_bytes = 0
        self.images = 0
        self.abilities: set[str] = set()

    def read(self, content: object, depth: int) -> None:
        """Read content: a text, a list, or a mapping of any API."""
        if isinstance(content, str):
            self._count(content)
            return
        known = as_mapping(content)
        if depth > _DEEPEST:
            return
        if known is not None:
            ability = None if _PART_FIELDS.isdisjoint(known) else self._ability(known)
            if ability is not None:
                self.abilities.add(ability)
                self.images += ability == "vision"
                return
            for value in known.values():
                if type(value) is str:  # the hot path of long conversations
                    self._count(value)
                else:
                    self.read(value, depth + 1)
        elif isinstance(content, Sequence) and not isinstance(content, (bytes, bytearray)):
            for part in content:
                self.read(part, depth + 1)

    def _count(self, text: str) -> None:
        self.text_bytes += len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))

    @staticmethod
    def _ability(part: Mapping[str, Any]) -> str | None:
        """The ability that a part needs: of images, audio and files."""
        kind = part.get("type")
        for ability, kinds in _PARTS.items():
            if isinstance(kind, str) and kind in kinds:
                return ability
        for inner in _inner(part):
            media = inner.get("mimeType", inner.get("mime_type", inner.get("media_type")))
            if isinstance(media, str):
                return _MEDIA.get(media.split("/", maxsplit=1)[0], "files")
        return None


def _inner(part: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for name in _INNER:
        inner = as_mapping(part.get(name))
        if inner is not None:
            yield inner


def _output_tokens(request: Mapping[str, Any]) -> int | None:
    places = [request, as_mapping(request.get("generationConfig")) or {}]
    found = [as_number(place.get(name)) for place in places for name in _OUTPUT_LIMITS if place.get(name) is not None]
    known = [int(value) for value in found if 0 < value < 1e12]
    return max(known) if known else None


def _asks_for_schema(request: Mapping[str, Any]) -> bool:
    text = as_mapping(request.get("text")) or {}
    for form in (as_mapping(request.get("response_format")), as_mapping(text.get("format"))):
        if form is not None and form.get("type") == "json_schema":
            return True
    config = as_mapping(request.get("generationConfig")) or {}
    return bool(config.get("responseSchema") or config.get("responseJsonSchema"))
