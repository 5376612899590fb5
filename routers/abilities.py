"""Names of models: one name for the spellings of hubs, gateways and leaderboards."""

from __future__ import annotations

import re

#: Endings that name a host, a packing or a way of serving, and not another model.
_PACKING = re.compile(
    r"-(gptq|awq|gguf|mlc|int4|int8|fp8|fp16|bf16|w4a16|w8a8|q\d\w*|gs\d+|noact|dynamic|merged|hf|turbo|k-[msx]\w?)(?![\w.])"
)
#: Endings that say that a model follows instructions, which a router takes for granted.
_TUNED = re.compile(r"-(instruct|inst|chat|it|exp)(?![\w.])")
_DATE = re.compile(r"-(20\d{2}-?\d{2}-?\d{2}|\d{2}-\d{2}-\d{2})$")
#: Short names by the full name that they stand for.
ALIASES = {
    "gpt-4-preview": "gpt-4-1106-preview",
    "gpt-4-2024-04-09": "gpt-4-turbo",
    "chatgpt": "gpt-3.5-turbo-0301",
}


def canonical_name(name: str) -> str:
    """The name of a model without what hubs and hosts add to it.

    Args:
        name: any spelling, such as ``meta-llama/Meta-Llama-3-8B-Instruct`` or ``openai/gpt-4o-2024-08-06``.

    Returns:
        Lower case, without an organisation, a host, a date, a packing and words such as "instruct".

    Example:
        >>> from routelearn.routers.abilities import canonical_name
        >>> canonical_name("meta-llama/Meta-Llama-3-8B-Instruct"), canonical_name("openai/gpt-4o-2024-08-06")
        ('llama-3-8b', 'gpt-4o')
    """
    previous = None
    while name != previous:  # what one step takes away can lay open what another takes away
        previous, name = name, _shorter(name)
    return name


def _shorter(name: str) -> str:
    short = name.strip().lower().rsplit("/", 1)[-1].split("@")[0].replace("_", "-").replace(" ", "-")
    if short in ALIASES:
        return ALIASES[short]
    if short.startswith(("gpt-3.5", "gpt-4")) and not short.startswith("gpt-4o"):
        return short  # versions of these differ, and their numbers are their names
    short = _TUNED.sub("", _PACKING.sub("", _DATE.sub("", short)))
    short = short.removeprefix("meta-").removeprefix("urial=inst-1k-")
    return re.sub(r"^llama-(v3p1|3-1)-", "llama-3.1-", short)
