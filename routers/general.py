"""The general router: it knows how hard a query is, and compares models by their abilities."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .assessment import Assessment
from .base import win_rate
from .bundle import Manifest
from .decision import Flags, Floats, Model
from .errors import InputError
from .learned import LearnedRouter
from .placement import Placement, pair_thresholds, place, quality_of
from .query import Query
from .session import Outputs, Session

#: What a score needs of a graph's outputs.
ITEM = ["item"]
#: Names of the models that a general router compares where none are given.
TIERS = ("strong", "weak")


class GeneralRouter(LearnedRouter):
    """A router for any models: it predicts how hard a query is, and places the models by ability.

    The quality of a model is ``sigmoid(slope(q) · ability + intercept(q))``, the item response model of
    `training.general`. `load` makes one: ``load("general", strong="gpt-4o", weak="gpt-4o-mini")``.

    Attributes:
        placements: how each model of the pool was placed, in the order of `models`.

    Example:
        >>> import routelearn
        >>> router = routelearn.load("general", strong="gpt-4o", weak="gpt-4o-mini")
        >>> router.route("Prove that the square root of 2 is irrational.").source
        'general'
        >>> bool(router.difficulty(["Prove Fermat's last theorem."])[0] > router.difficulty(["Hi!"])[0])
        True
    """

    def __init__(self, manifest: Manifest, session: Session, placements: Sequence[Placement]) -> None:
        """Wrap a manifest, whose pool holds the placed models in their order, and a loaded session."""
        super().__init__(manifest, session)
        self.placements = tuple(placements)
        self._abilities = np.array([placement.ability for placement in placements], np.float32)
        strong, weak = self._pair
        self._strong_ability, self._weak_ability = placements[strong].ability, placements[weak].ability
        doubtful = [str(placements[i]) for i in self._pair if not placements[i].calibrated]
        self.doubt = f"; {', '.join(doubtful)}, so the score is not calibrated" if doubtful else ""

    def quality(self, queries: Sequence[Query]) -> Floats:
        return self._quality_at(self.items(queries))

    def items(self, queries: Sequence[Query]) -> Floats:
        """Slope and intercept of n queries: float32 (n, 2)."""
        return self._output(queries, ITEM)

    def difficulty(self, queries: Sequence[Query]) -> Floats:
        """The difficulty of n queries, float32 (n,): a model of that ability succeeds with probability one half."""
        items = self.items(queries)
        return np.asarray(-items[:, 1] / np.maximum(items[:, 0], np.float32(1e-3)), np.float32)

    def placed(
        self,
        *,
        strong: str | None = None,
        weak: str | None = None,
        ability: Mapping[str, float] | None = None,
        by_labels: Mapping[str, float] | None = None,
    ) -> GeneralRouter:
        """The same router for another strong and weak model.

        Models stay where they were placed, save by their tier alone. A pool of more than two models stays the pool.

        Args:
            strong: the strong model; None: the same as now.
            weak: the weak model; None: the same as now.
            ability: as for `load`.
            by_labels: of some models the ability on the scale of the bundle, as labels place them (`adapt`).

        Raises:
            InputError: an ability is not as `load` expects it, or strong and weak are not two models.
        """
        strong, weak = strong or self.strong, weak or self.weak
        kept = {one.name: one for one in self.placements if one.by != "tier"}
        kept |= {name: Placement(name, value, "labels") for name, value in (by_labels or {}).items()}
        others = set(kept) if len(self.pool) > 2 else set()
        pool = [model for model in self.pool if model.name in {*others, strong, weak}]
        return placed_router(
            self.manifest, self._session, strong=strong, weak=weak, pool=pool, ability=ability, kept=kept
        )

    def _quality_at(self, items: Floats) -> Floats:
        """Quality (n, m) at items (n, 2)."""
        return np.asarray(quality_of(items, self._abilities), np.float32)

    def _score_one(self, text: str) -> Any:
        slope, intercept = self._session.run_one(text, ITEM)[0][0][0].tolist()
        strong: Any = np.float32(_sigmoid(slope * self._strong_ability + intercept))
        weak: Any = np.float32(_sigmoid(slope * self._weak_ability + intercept))
        return win_rate(strong, weak, self.link)

    def _assessment(self, outputs: Outputs, truncated: Flags) -> Assessment:
        placed = {**outputs, "quality": self._quality_at(outputs["item"])}
        return replace(super()._assessment(placed, truncated), sources=["general"] * len(truncated))


def placed_router(
    manifest: Manifest,
    session: Session,
    *,
    strong: str | None,
    weak: str | None,
    pool: Sequence[Model | str] | None,
    ability: Mapping[str, float] | None,
    kept: Mapping[str, Placement] | None = None,
) -> GeneralRouter:
    """The general router of a bundle for the models of the user.

    Args:
        manifest: of the bundle.
        session: its graph.
        strong: the strong model; None: the ablest of the pool, or without a pool the bundle's.
        weak: the weak model; None: the least able of the pool, or without a pool the bundle's.
        pool: the models, with prices if known; None: strong and weak alone.
        ability: mean scores on the user's traffic, or arena ratings, of some of the models.
        kept: where models without such an ability were placed earlier; None: nowhere.

    The thresholds of the bundle hold for the bundle's own pair; those of another pair follow from the traffic that the
    bundle describes.

    Raises:
        InputError: as `place` raises it, or strong and weak are not two models.
    """
    general = manifest.general or {}
    if pool is None:
        strong, weak = strong or manifest.strong, weak or manifest.weak
        priced = {model.name: model for model in manifest.pool}
        pool = [priced.get(name, Model(name)) for name in (strong, weak)]
    models = [Model(one) if isinstance(one, str) else one for one in pool]
    names = [model.name for model in models]
    for name in (strong, weak):
        if name is not None and name not in names:
            models.append(Model(name))
            names.append(name)
    if len(names) < 2 or len(set(names)) != len(names):
        raise InputError(f"the pool has the models {names}; expected two or more, with distinct names")
    placements = place(general, names, strong, weak, ability or {}, kept or {})
    ranked = sorted(placements, key=lambda one: one.ability)
    strong = strong or next(one.name for one in reversed(ranked) if one.name != weak)
    weak = weak or next(one.name for one in ranked if one.name != strong)
    items = np.asarray(general["items"], np.float64)
    pair = np.array([next(one.ability for one in placements if one.name == name) for name in (strong, weak)])
    placed = replace(manifest, pool=tuple(models), strong=strong, weak=weak)
    if (strong, weak) != (manifest.strong, manifest.weak) or {strong, weak} & set(ability or ()):
        thresholds = pair_thresholds(items, pair, manifest.link)
        placed = replace(placed, guarantee=None, reference=None, **thresholds)
    return GeneralRouter(placed, session, placements)


def _sigmoid(logit: float) -> float:
    """``1 / (1 + exp(-logit))``, which does not overflow."""
    if logit >= 0:
        return 1 / (1 + math.exp(-logit))
    small = math.exp(logit)
    return small / (1 + small)
