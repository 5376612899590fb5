"""The rule-based router: it needs no training, says which rules fired, and chooses strong when no rule fires."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from .assessment import Assessment
from .base import Router
from .decision import Context, Floats, Model, Source
from .errors import InputError
from .messages import USER
from .query import Query, messages_of, query_list, query_text, turns

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    import tomli as tomllib

DEFAULT_RULES = Path(__file__).with_name("rules.toml")

#: The rules examine this many characters of a conversation at most, so that a decision takes bounded time.
EXAMINED_CHARACTERS = 8_000

#: The score when no rule fires: high enough for strong at every threshold up to 1.
UNKNOWN_SCORE = 1.0

_LETTER = re.compile(r"[^\W\d_]")
_NON_LATIN = re.compile(r"[^\W\d_a-zA-Z\u00aa-\u024f\u1e00-\u1eff]")


@dataclass(frozen=True)
class Rule:
    """One rule: a condition, and the weight that it adds to the logit of the score (see rules.toml)."""

    name: str
    weight: float
    pattern: re.Pattern[str] | None = None
    min_matches: int = 1
    min_characters: int | None = None
    max_characters: int | None = None
    min_turns: int | None = None
    non_latin_share: float | None = None
    tier: str | None = None

    def fires(self, text: str, length: int, n_turns: int, context: Context) -> bool:
        """Test the condition on a conversation's text, length in characters, number of user turns and context."""
        if self.pattern is not None:
            matches = self.pattern.finditer(text)
            return all(next(matches, None) is not None for _ in range(self.min_matches))
        if self.min_characters is not None or self.max_characters is not None:
            return max(1, self.min_characters or 0) <= length <= (self.max_characters or length)
        if self.min_turns is not None:
            return n_turns >= self.min_turns
        if self.non_latin_share is not None:
            foreign = len(_NON_LATIN.findall(text))
            return foreign > 0 and foreign >= self.non_latin_share * len(_LETTER.findall(text))
        return context.get("tier") == self.tier


@dataclass(frozen=True)
class RuleSet:
    """The rules of a file, with its bias and its threshold."""

    rules: tuple[Rule, ...]
    bias: float
    threshold: float


def load_rules(path: str | Path = DEFAULT_RULES) -> RuleSet:
    """Read rules from a TOML file.

    Raises:
        InputError: the file cannot be read as rules; the message names the file, the rule and what was expected.
    """
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; expected a TOML file of rules") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not TOML ({error}); expected a TOML file of rules") from error
    unknown = set(content) - {"bias", "threshold", "rules"}
    table = content.get("rules")
    if unknown or not isinstance(table, dict) or not table:
        raise InputError(f"{path} has the keys {sorted(content)}; expected bias, threshold and a table of rules")
    return RuleSet(
        tuple(_rule(path, name, settings) for name, settings in table.items()),
        _number(path, "bias", content.get("bias", 0.0)),
        _number(path, "threshold", content.get("threshold", 0.5)),
    )


def _rule(path: str | Path, name: str, settings: Any) -> Rule:
    conditions = {"pattern", "min_characters", "max_characters", "min_turns", "non_latin_share", "tier"}
    known = {item.name for item in fields(Rule)} - {"name"}
    if not isinstance(settings, Mapping) or not set(settings) <= known or "weight" not in settings:
        raise InputError(f"{path}, rule {name}: expected a weight and one condition of {sorted(conditions)}")
    if len(conditions & set(settings)) != 1:
        raise InputError(
            f"{path}, rule {name} has the conditions {sorted(conditions & set(settings))}; "
            f"expected exactly one of {sorted(conditions)}"
        )
    values = dict(settings)
    for key, value in settings.items():
        if key == "pattern":
            try:
                values[key] = re.compile(value, re.IGNORECASE)
            except (re.error, TypeError) as error:
                raise InputError(
                    f"{path}, rule {name}: pattern {value!r} is not valid ({error}); expected a regular expression"
                ) from error
        elif key == "tier":
            if not isinstance(value, str):
                raise InputError(f"{path}, rule {name}: tier is {value!r}; expected text")
        else:
            _number(path, f"rule {name}: {key}", value)
    return Rule(name, **values)


def _number(path: str | Path, what: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InputError(f"{path}, {what} is {value!r}; expected a number")
    return float(value)


class RulesRouter(Router):
    """Scores by rules that a person can read and edit, and names the rules that fired.

    The weights of the rules that fire add up to the logit of the score. When no rule fires, strong answers.

    Attributes:
        rules: the rules with their bias and threshold.

    Example:
        >>> from routelearn import RulesRouter
        >>> router = RulesRouter("gpt-4o", "gpt-4o-mini")
        >>> [name for name, weight in router.fired("Hello!")]
        ['short', 'greeting']
    """

    def __init__(
        self,
        strong: str = "strong",
        weak: str = "weak",
        *,
        rules: RuleSet | None = None,
        pool: Sequence[Model] = (),
    ) -> None:
        """Make a rule-based router for two models.

        Args:
            strong: name of the strong model.
            weak: name of the weak model.
            rules: the rules; None: the default rules in routers/rules.toml.
            pool: the two models with their prices, if known.
        """
        if rules is not None and not isinstance(rules, RuleSet):
            raise InputError(f"rules is {rules!r:.80}; expected load_rules(path), or None")
        self.rules = rules or load_rules()
        prices = {model.name: model for model in pool}
        super().__init__(
            [prices.get(name, Model(name)) for name in (strong, weak)], strong, weak, threshold=self.rules.threshold
        )

    @classmethod
    def from_toml(cls, path: str | Path, strong: str = "strong", weak: str = "weak") -> RulesRouter:
        """Make a router from a TOML file of rules; raises what `load_rules` raises."""
        return cls(strong, weak, rules=load_rules(path))

    def fired(self, query: Query, context: Context | None = None) -> list[tuple[str, float]]:
        """List the rules that fire for a query with their weights, in the order of the file."""
        text, _ = query_text(query, EXAMINED_CHARACTERS)
        if isinstance(query, str):
            length, n_turns = len(query), 1
        else:
            said = turns(query)
            length = sum(map(len, said))
            n_turns = sum(role in USER for role, _ in messages_of(query))
        about = context or {}
        return [(rule.name, rule.weight) for rule in self.rules.rules if rule.fires(text, length, n_turns, about)]

    @property
    def learned(self) -> Router | None:
        """Always None: rules are written, not learned."""
        return None

    def quality(self, queries: Sequence[Query]) -> Floats:
        return self.assess(queries).quality

    def assess(self, queries: Sequence[Query], contexts: Sequence[Context] | None = None) -> Assessment:
        if type(queries) is not list:
            queries = query_list(queries)
        scores = np.empty(len(queries), np.float32)
        truncated = np.zeros(len(queries), np.bool_)
        sources: list[Source] = []
        reasons: list[str] = []
        causes: list[str] = []
        for row, query in enumerate(queries):
            fired = self.fired(query, contexts[row] if contexts else None)
            if not fired:
                scores[row] = UNKNOWN_SCORE
                sources.append("default")
                causes.append("default")
                reasons.append("no rule fired: the strong model")
            else:
                logit = self.rules.bias + sum(weight for _, weight in fired)
                scores[row] = 1 / (1 + math.exp(-max(-30.0, min(30.0, logit))))
                sources.append("rules")
                causes.append("rules")
                reasons.append(
                    "rules: "
                    + ", ".join(f"{name} {weight:+.1f}" for name, weight in fired)
                    + f"; score {scores[row]:.2f}"
                )
            truncated[row] = _length(query) > EXAMINED_CHARACTERS
        # Invert the link: score = 1/2 + (quality[strong] - quality[weak]) / 2.
        quality = np.stack([np.minimum(1, 2 * scores), np.minimum(1, 2 - 2 * scores)], axis=1)
        return Assessment(quality.astype(np.float32), truncated, sources=sources, reasons=reasons, causes=causes)


def _length(query: Query) -> int:
    return len(query) if isinstance(query, str) else sum(map(len, turns(query)))
