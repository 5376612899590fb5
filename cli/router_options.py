"""Options that name a router: a bundle or the rules, and what decides between its two models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from ..policies.threshold import policy_of
from ..routers.base import Policy, Router
from ..routers.errors import InputError
from ..routers.fallback import FallbackRouter
from ..routers.general import GeneralRouter
from ..routers.learned import LearnedRouter
from ..routers.loading import load, refuse_models
from ..routers.rules import RulesRouter, load_rules
from .flags import Flag, Options
from .options import DECISION, POOL

#: The name of the router that consists of rules alone.
RULES = "rules"


@dataclass(frozen=True)
class RulesModels(Options):
    """The models and the rules of the router "rules", which has no bundle that names them.

    Attributes:
        strong: The strong model, if the router is "rules" or "general". Another bundle names its own.
        weak: The weak model, if the router is "rules" or "general". Another bundle names its own.
        rules: TOML file of rules, if the router is "rules". The default is the built-in rules.
    """

    HEADING: ClassVar[str] = POOL

    strong: str | None = None
    weak: str | None = None
    rules: Path | None = None

    def open(self, router: str) -> LearnedRouter | RulesRouter:
        """The router of a bundle, or the rules.

        Raises:
            InputError: options were given that a bundle has no use for.
        """
        if router == RULES:
            return open_rules(self.strong, self.weak, self.rules)
        learned = load(router)
        names = ("rules",) if isinstance(learned, GeneralRouter) else ("strong", "weak", "rules")
        given = [f"--{name}" for name in names if getattr(self, name) is not None]
        if given:
            raise InputError(f"{', '.join(given)}: no effect on the bundle {router}; expected the router {RULES!r}")
        if isinstance(learned, GeneralRouter):
            return learned.placed(strong=self.strong, weak=self.weak)
        return learned


@dataclass(frozen=True)
class PolicyChoice(Options):
    """What decides between strong and weak; at most one is given.

    Attributes:
        threshold: Send a query to strong when its score is at or above this, from 0 to 1. Without --threshold,
            --strong-share and --guaranteed, the bundle's threshold decides.
        strong_share: Send this share of the queries to strong, from 0 to 1. The share holds for queries like those that
            the bundle was calibrated on.
        guaranteed: Use the threshold with a guaranteed quality that routelearn calibrate stored in the bundle. Fails
            when the bundle has none.
    """

    HEADING: ClassVar[str] = DECISION

    threshold: float | None = None
    strong_share: float | None = None
    guaranteed: bool = False

    def policy(self) -> Policy | None:
        """The policy that was chosen; None: the router's own threshold decides.

        Raises:
            InputError: more than one was given, or a value is out of its range.
        """
        return policy_of(self.threshold, self.strong_share, self.guaranteed)


@dataclass(frozen=True)
class RouterChoice(Options):
    """A router, the two models that it decides between, and what answers when it cannot.

    Attributes:
        router: Folder of a bundle, the word "general" (the router that comes with routelearn), or the word "rules".
        strong: The strong model. Without it: the bundle's. Needed for "rules" and for --fallback.
        weak: The weak model. Without it: the bundle's. Needed for "rules" and for --fallback.
        ability: For a general router, how able a model is: MODEL=VALUE, where the value is its mean score on queries
            like yours (0.85), or its arena rating (1250). Can be repeated. Without it the table of the bundle says.
        rules: TOML file of rules. They decide where no router can. The default is the built-in rules.
        fallback: When the bundle does not load, let the router that comes with routelearn decide, and rules where that
            cannot, instead of failing.
        no_general: Let rules alone decide where the router cannot. By default the router that comes with routelearn
            ("general") decides before them, save for queries unlike those that it learned from.
    """

    HEADING: ClassVar[str] = DECISION

    router: Annotated[str, Flag(is_argument=True)]
    strong: Annotated[str | None, Flag(panel=POOL)] = None
    weak: Annotated[str | None, Flag(panel=POOL)] = None
    ability: Annotated[list[str] | None, Flag(panel=POOL, metavar="MODEL=VALUE")] = None
    rules: Path | None = None
    fallback: bool = False
    no_general: bool = False

    def open(
        self,
        *,
        threads: int | None = None,
        timeout_s: float | None = None,
        check: Callable[[], object] = lambda: None,
    ) -> FallbackRouter | RulesRouter:
        """Open the router.

        Args:
            threads: batches in flight; None: one for each CPU of this process.
            timeout_s: seconds after which rules decide a batch; None: no limit.
            check: called before a bundle is loaded; an error that it raises is as one of loading.

        Raises:
            BundleError: the bundle cannot be trusted, and --fallback was not given.
            InputError: the bundle lacks a model, or a file of rules cannot be read, and --fallback was not given.
        """
        rules = RulesRouter(
            self.strong or "strong", self.weak or "weak", rules=load_rules(self.rules) if self.rules else None
        )
        if self.router == RULES:
            return rules
        learned: Router | Exception
        try:
            check()
            learned = self._load(threads)
        except Exception as error:
            if not self.fallback:
                raise
            learned = error
        router = FallbackRouter(
            learned,
            strong=self.strong,
            weak=self.weak,
            rules=rules,
            general=not self.no_general,
            timeout_s=timeout_s,
        )
        if router.unavailable and not self.fallback:
            instead = "rules" if self.no_general else "the general router and rules"
            raise InputError(f"{router.unavailable}; give --fallback to let {instead} decide instead")
        return router

    def _load(self, threads: int | None) -> LearnedRouter:
        """The bundle; a general router gets the models that were named."""
        ability = abilities_of(self.ability) if self.ability else None
        learned = load(self.router, threads=threads)
        if isinstance(learned, GeneralRouter):
            return learned.placed(strong=self.strong, weak=self.weak, ability=ability)
        refuse_models(self.router, learned.manifest, {"ability": ability})
        return learned


def abilities_of(values: Sequence[str]) -> dict[str, float]:
    """The abilities that MODEL=VALUE pairs give.

    Raises:
        InputError: a pair has another form.
    """
    abilities = {}
    for value in values:
        name, _, number = value.rpartition("=")
        try:
            abilities[name] = float(number)
        except ValueError:
            name = ""
        if not name:
            raise InputError(f"--ability is {value!r}; expected MODEL=VALUE, such as gpt-4o=0.85 or gpt-4o=1250")
    return abilities


def open_rules(strong: str | None, weak: str | None, rules: Path | None) -> RulesRouter:
    """The router that consists of rules alone, to be measured on records.

    Raises:
        InputError: a model is not named, or the file of rules cannot be read.
    """
    if strong is None or weak is None:
        raise InputError(f"the router {RULES!r} names no models; give --strong and --weak as the data calls them")
    return RulesRouter(strong, weak, rules=load_rules(rules) if rules else None)
