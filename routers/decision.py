"""The candidate models, the decision for one query, and the types that all routers share."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from .errors import InputError

Floats = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]
#: What describes a request to policies and rules, such as {"tier": "pro", "use_case": "code"}.
Context = Mapping[str, str]

#: What made a decision. "general": the router that ships with routelearn, which saw no label of this traffic.
#: "default": neither a trained router nor a rule had a say, so the strong model answers.
Source = Literal["learned", "general", "rules", "default"]
#: The sources whose scores come from training.
TRAINED: tuple[Source, ...] = ("learned", "general")

#: The `Decision.cause` when the score was compared with the threshold and nothing else decided.
THRESHOLD = "threshold"

#: Fields of a model: its prices, the most tokens that it reads and writes, and what it can do.
PRICES = ("input_price", "output_price", "cached_input_price")
TOKEN_LIMITS = ("max_input_tokens", "max_output_tokens")
ABILITIES = ("vision", "audio", "files", "tools", "json_schema")


@dataclass(frozen=True, slots=True)
class Model:
    """One candidate model of the pool.

    Attributes:
        name: the model's name.
        input_price: USD per million input tokens; None: not known.
        output_price: USD per million output tokens; None: not known.
        cached_input_price: USD per million input tokens that the provider read from its prompt cache; None: the input
            price.
        max_input_tokens: the most tokens that the model reads; None: not known, so that it counts as enough.
        max_output_tokens: the most tokens that the model writes; None: the same.
        vision: whether the model reads images; None: not known, so that it counts as able.
        audio: whether it reads audio; None: the same.
        files: whether it reads files such as PDF; None: the same.
        tools: whether it calls tools; None: the same.
        json_schema: whether it answers by a JSON schema; None: the same.

    Example:
        >>> from routelearn import Model
        >>> Model("gpt-4o-mini", input_price=0.15, output_price=0.60).output_price
        0.6
    """

    name: str
    input_price: float | None = None
    output_price: float | None = None
    cached_input_price: float | None = None
    max_input_tokens: int | None = None
    max_output_tokens: int | None = None
    vision: bool | None = None
    audio: bool | None = None
    files: bool | None = None
    tools: bool | None = None
    json_schema: bool | None = None

    def __post_init__(self) -> None:
        """Check that the name is a text, and that prices, limits and abilities are such.

        Raises:
            InputError: they are not.
        """
        if not isinstance(self.name, str) or not self.name:
            raise InputError(f"the name of a model is {self.name!r:.80}; expected a text, such as 'gpt-4o'")
        for field in PRICES:
            price = getattr(self, field)
            if price is not None and (isinstance(price, bool) or not isinstance(price, numbers.Real)):
                raise InputError(
                    f"{field} of model {self.name!r} is {price!r:.80}; expected USD per million tokens, or None"
                )
        for field in TOKEN_LIMITS:
            limit = getattr(self, field)
            if limit is not None and (isinstance(limit, bool) or not isinstance(limit, numbers.Integral) or limit < 1):
                raise InputError(
                    f"{field} of model {self.name!r} is {limit!r:.80}; expected a whole number of tokens, or None"
                )
        for field in ABILITIES:
            able = getattr(self, field)
            if able is not None and not isinstance(able, bool):
                raise InputError(f"{field} of model {self.name!r} is {able!r:.80}; expected true, false, or None")

    def as_dict(self) -> dict[str, Any]:
        """Return the model as plain data for JSON: its name, both prices, and whatever else is known."""
        known = {name: value for name, value in asdict(self).items() if value is not None}
        return {"name": self.name, "input_price": None, "output_price": None, **known}


@dataclass(frozen=True, slots=True)
class Decision:
    """The model chosen for one query, and why.

    Attributes:
        model: the chosen model.
        score: expected win rate of strong over weak, ties one half, in [0, 1].
        threshold: score at or above it goes to strong.
        candidates: every model of the pool: the chosen model first, then the others from the best quality down.
        source: what decided: "learned" (the learned router), "general" (the router that ships with routelearn),
            "rules", or "default" (no rule fired: the strong model).
        reason: one readable sentence.
        truncated: the router did not read all of the query, because it is longer than the token budget.
        cause: one word for the kind of reason, to count decisions by: "threshold", or the word of the fallback,
            policy or session that decided.
        propensity: the probability with which this model was chosen; below 1 only when a policy explores.
        targets: the models to ask when several answer together; empty: ask `model` alone.

    Example:
        >>> from routelearn import RulesRouter
        >>> decision = RulesRouter("gpt-4o", "gpt-4o-mini").route("Hello!")
        >>> decision.model, decision.source
        ('gpt-4o-mini', 'rules')
    """

    model: str
    score: float
    threshold: float
    candidates: tuple[str, ...]
    source: Source
    reason: str
    truncated: bool = False
    cause: str = THRESHOLD
    propensity: float = 1.0
    targets: tuple[str, ...] = ()

    def instead(self, model: str, cause: str, reason: str) -> Decision:
        """This decision for another model, asked alone, whatever was drawn.

        Args:
            model: the other model; the candidates follow behind it.
            cause: one word for the kind of reason.
            reason: one readable sentence.
        """
        others = tuple(name for name in self.candidates if name != model)
        return replace(
            self, model=model, candidates=(model, *others), cause=cause, reason=reason, propensity=1.0, targets=()
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the decision as plain data for JSON."""
        return asdict(self)
