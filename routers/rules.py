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

#: A word: letters and digits, with the signs at its end that name languages (c++, c#).
_WORD = re.compile(r"\w+[+#]*")
#: Scripts that put no space between words, or put endings right behind them (Korean).
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3]")
_LETTER = re.compile(r"[^\W\d_]")
_NON_LATIN = re.compile(r"[^\W\d_a-zA-Z\u00aa-\u024f\u1e00-\u1eff]")


class Examined:
    """What the rules read of one conversation.

    Attributes:
        text: the text that is examined.
        ascii: whether the text has ASCII characters only.
        words: its words in lower case, in order.
        spaced: a space, then the words with one space behind each, so that " step by step " is found in it.
        length: characters of the conversation.
        n_turns: user turns.
        context: the request's context.
    """

    __slots__ = ("ascii", "context", "length", "n_turns", "spaced", "text", "words")

    def __init__(self, text: str, length: int, n_turns: int, context: Context) -> None:
        self.text, self.length, self.n_turns, self.context = text, length, n_turns, context
        self.ascii = text.isascii()
        self.words = _WORD.findall(text.lower())
        self.spaced = f" {' '.join(self.words)} "


class Words:
    """The words and phrases of a rule, in the forms in which they are sought.

    A phrase matches whole words; "diagnos*" matches every word that begins so. A phrase in a script without spaces
    between words matches anywhere.
    """

    def __init__(self, phrases: Sequence[str]) -> None:
        found = [_sought(phrase) for phrase in phrases]
        whole = [one for one in found if one[0] == one[-1] == " "]
        self.openings = tuple(f" {one.lstrip()}" for one in found)
        self.single = frozenset(one.strip() for one in whole if one.count(" ") == 2)
        several = [one for one in whole if one.count(" ") > 2]
        #: The phrases by their first words: a phrase is sought only where its first word occurs.
        self.several = {
            one.split()[0]: [other for other in several if other.split()[0] == one.split()[0]] for one in several
        }
        self.first = self.single.union(self.several)
        self.parts = tuple(one for one in found if one not in whole)
        self.ascii_parts = tuple(one for one in self.parts if one.isascii())

    def open(self, query: Examined) -> bool:
        """Whether the query opens with one of the phrases."""
        return query.spaced.startswith(self.openings)

    def occur(self, query: Examined, times: int) -> bool:
        """Whether the phrases occur in the query so many times."""
        spaced = query.spaced
        sought = list(self.ascii_parts if query.ascii else self.parts)
        for word in self.first.intersection(query.words):
            if word in self.single:
                if times == 1:
                    return True
                sought.append(f" {word} ")
            sought += self.several.get(word, ())
        if times == 1:
            for part in sought:  # noqa: SIM110 - any() with a generator takes twice as long
                if part in spaced:
                    return True
            return False
        return bool(sought) and sum(map(spaced.count, sought)) >= times


def _sought(phrase: str) -> str:
    words = " ".join(_WORD.findall(phrase.lower()))
    if _UNSPACED.search(phrase):
        return words
    return f" {words}" if phrase.endswith("*") else f" {words} "


@dataclass(frozen=True)
class Rule:
    """One rule: a condition, and the weight that it adds to the logit of the score (see rules.toml)."""

    name: str
    weight: float
    pattern: re.Pattern[str] | None = None
    words: Words | None = None
    opening: Words | None = None
    min_matches: int = 1
    min_characters: int | None = None
    max_characters: int | None = None
    min_turns: int | None = None
    non_latin_share: float | None = None
    tier: str | None = None

    def fires(self, query: Examined) -> bool:  # noqa: PLR0911 - one return for each condition
        """Test the condition on a query."""
        if self.words is not None:
            return self.words.occur(query, self.min_matches)
        if self.opening is not None:
            return self.opening.open(query)
        if self.pattern is not None:
            matches = self.pattern.finditer(query.text)
            return all(next(matches, None) is not None for _ in range(self.min_matches))
        if self.min_characters is not None:
            return query.length >= max(1, self.min_characters)
        if self.max_characters is not None:
            return 1 <= query.length <= self.max_characters
        if self.min_turns is not None:
            return query.n_turns >= self.min_turns
        if self.non_latin_share is not None:
            if query.ascii:
                return False
            foreign = len(_NON_LATIN.findall(query.text))
            return foreign > 0 and foreign >= self.non_latin_share * len(_LETTER.findall(query.text))
        return query.context.get("tier") == self.tier


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
    known = {item.name for item in fields(Rule)} - {"name"}
    conditions = known - {"weight", "min_matches"}
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
        elif key in {"words", "opening"}:
            if (
                not isinstance(value, list)
                or not value
                or not all(isinstance(x, str) and _WORD.search(x) for x in value)
            ):
                raise InputError(f"{path}, rule {name}: {key} is {value!r:.80}; expected a list of words and phrases")
            values[key] = Words(value)
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
        ['very_short', 'short', 'greeting']
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
        examined = Examined(text, length, n_turns, context or {})
        return [(rule.name, rule.weight) for rule in self.rules.rules if rule.fires(examined)]

    @property
    def learned(self) -> Router | None:
        """Always None: rules are written, not learned."""
        return None

    def quality(self, queries: Sequence[Query]) -> Floats:
        fired = [self.fired(query) for query in query_list(queries)]
        return _quality(np.array([self._score(one) for one in fired], np.float32))

    def _score(self, fired: Sequence[tuple[str, float]]) -> float:
        if not fired:
            return UNKNOWN_SCORE
        logit = self.rules.bias + sum(weight for _, weight in fired)
        return 1 / (1 + math.exp(-max(-30.0, min(30.0, logit))))

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
            scores[row] = self._score(fired)
            if not fired:
                sources.append("default")
                causes.append("default")
                reasons.append("no rule fired: the strong model")
            else:
                sources.append("rules")
                causes.append("rules")
                reasons.append(
                    "rules: "
                    + ", ".join(f"{name} {weight:+.1f}" for name, weight in fired)
                    + f"; score {scores[row]:.2f}"
                )
            truncated[row] = _length(query) > EXAMINED_CHARACTERS
        return Assessment(_quality(scores), truncated, sources=sources, reasons=reasons, causes=causes)


def _length(query: Query) -> int:
    return len(query) if isinstance(query, str) else sum(map(len, turns(query)))


def _quality(scores: Floats) -> Floats:
    """Invert the link: score = 1/2 + (quality[strong] - quality[weak]) / 2."""
    quality = np.empty((len(scores), 2), np.float32)
    np.minimum(1, 2 * scores, out=quality[:, 0])
    np.minimum(1, 2 - 2 * scores, out=quality[:, 1])
    return quality
