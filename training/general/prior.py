"""A general router as a prior of a trained router: what it expects of the models of the labels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...routers.base import sigmoid
from ...routers.bundle import GENERAL, MODEL, TOKENIZER, Truncation, read_bundle
from ...routers.decision import Floats
from ...routers.errors import InputError
from ...routers.placement import ability_in
from ...routers.query import Query
from ..encoders.general_part import GeneralPart
from ..encoders.static import StaticEncoder
from ..encoders.static_network import EncodedQueries, encode_queries
from ..examples import Examples, Outcomes
from ..export.graph_builder import stored_arrays, stored_epsilon
from ..fit.factorization import Array, logit_of, logits, losses
from ..fit.minimise import minimise
from ..fit.ranking import LEAST_GAIN, mean_loss
from .familiarity import Background, held_out_familiarity, some_of
from .item_response import SCALE_L2

#: Standard deviation of the ability of a model around that of the table, from one kind of traffic to another.
_TABLE_DEVIATION = 0.5
#: With so many labelled queries the general router and the labels count alike. (Chosen on sources of the general
#: router, as are the shares: benchmarks/adaptation.py --development.)
EQUAL_SHARE = 20
#: Factors of that share that held-out outcomes choose from, the preferred one first.
SHARES = (1.0, 1.8, 0.0)
#: Shares of held-out labelled queries that may be taken for unfamiliar, the preferred one first.
UNFAMILIAR = (0.05, 0.01)


@dataclass(frozen=True)
class GeneralPrior:
    """The head of a general router over a static encoder.

    Attributes:
        name: the bundle's name or path.
        fingerprint: of its static encoder.
        weight: float64 (d + 1, 2), from the features of a query to its slope and intercept.
        bias: float64 (2,).
        field: how it places models; see `routers.placement`.
        encoder: its static encoder.
        truncation: how much of a query it reads.
        epsilon: what it adds to the variance of a query's vector over the dimensions.
    """

    name: str
    fingerprint: str | None
    weight: Array
    bias: Array
    field: Mapping[str, Any]
    encoder: StaticEncoder
    truncation: Truncation
    epsilon: float

    @classmethod
    def read(cls, bundle: str | Path) -> GeneralPrior:
        """Read a general router.

        Raises:
            InputError: it is a bundle of another kind.
            BundleError: the bundle cannot be trusted.
        """
        manifest, contents = read_bundle(bundle)
        if manifest.kind != GENERAL:
            raise InputError(f"{bundle} is a {manifest.kind} router; expected a general router, such as 'general'")
        arrays = stored_arrays(contents[MODEL])
        if not {"weight", "bias", "table"} <= arrays.keys():
            raise InputError(f"{bundle} reads queries by a transformer; expected a general router on a static encoder")
        fingerprint = manifest.training.get("encoder_fingerprint")
        # The scale of the table plays no part in its unit vectors; a bundle does not keep it.
        encoder = StaticEncoder(arrays["table"].copy(), 1.0, contents[TOKENIZER], str(fingerprint))
        return cls(
            name=str(bundle),
            fingerprint=fingerprint,
            weight=np.asarray(arrays["weight"], np.float64),
            bias=np.asarray(arrays["bias"], np.float64),
            field=manifest.general or {},
            encoder=encoder,
            truncation=manifest.truncation,
            epsilon=stored_epsilon(contents[MODEL]),
        )

    def encode(self, queries: Sequence[Query]) -> EncodedQueries:
        """Read n queries as the general router does."""
        return encode_queries(queries, self.encoder, self.truncation, self.epsilon)

    def guess(
        self,
        encoded: EncodedQueries,
        folds: Sequence[npt.NDArray[np.bool_]],
        examples: Examples,
        strong: str | None,
    ) -> GeneralGuess:
        """Place the models of the labels, and say what the general router expects of them.

        The abilities are those of the table, moved by the outcomes of the primary source (maximum a posteriori).

        Args:
            encoded: the n queries.
            folds: bool (n,) each, held-out queries.
            examples: outcomes over the n queries.
            strong: the strong model, if it is known.
        """
        length = np.log(encoded.inverse.astype(np.float64))
        items = encoded.unit @ self.weight[:-1].astype(np.float32) + length * self.weight[-1] + self.bias
        ability, scale = self._placed(items, examples, strong)
        # Preferences tell differences of utilities alone.
        graded = len(examples.performances) > 0
        linear = self._linear(ability, 1.0, 1.0) if graded else self._linear(ability - ability.mean(), scale, 0.0)
        return GeneralGuess(
            router=self.name,
            models=examples.models,
            ability=ability,
            weight=linear[0],
            bias=linear[1],
            encoded=encoded,
            rises=self._rises(encoded.unit, folds, examples),
            queries=int(examples.primary_queries().sum()),
        )

    def _rises(
        self, unit: Floats, folds: Sequence[npt.NDArray[np.bool_]], examples: Examples
    ) -> list[tuple[Floats, float]]:
        """How the share may rise, for each of `UNFAMILIAR`; a router without a background says nothing of this."""
        if "background" not in self.field:
            return [(np.zeros(unit.shape[1], np.float32), 0.0)]
        background, labelled = Background.from_dict(self.field["background"]), examples.primary_queries()
        familiarity = held_out_familiarity(unit, background, folds, labelled)
        weight, offset = background.discriminant(some_of(unit, labelled))
        rises = []
        for share in UNFAMILIAR:
            start, middle = np.quantile(familiarity, [share, 0.5]).tolist()
            width = max((middle - start) / 2, 1e-3)
            rises.append(((-weight / width).astype(np.float32), (start - offset) / width))
        return rises

    def _linear(self, ability: Array, scale: float, level: float) -> tuple[Array, Array]:
        """Weight and bias of ``scale · slope · ability + level · intercept``."""
        both = np.stack([scale * ability, np.full(len(ability), level)])
        return self.weight @ both, self.bias @ both

    def _placed(self, items: Array, examples: Examples, strong: str | None) -> tuple[Array, float]:
        """Abilities (m,), and how sharply the judge of the preferences decides."""
        expected, deviation = self._expected(examples, strong)
        parts = [part.primary() for part in (examples.performances, examples.preferences) if len(part)]
        rating = self.field.get("rating")
        start = rating["points"] * math.log(10) / 400 if rating else 1.0
        slope = items[:, :1]

        def loss_and_gradient(point: Array) -> tuple[float, Array]:
            ability, log_scale = expected + point[:-1], point[-1]
            total = float(np.square(point[:-1] / deviation).sum() + SCALE_L2 * log_scale**2) / 2
            gradient = np.append(point[:-1] / deviation**2, SCALE_L2 * log_scale)
            for part in parts:
                paired = part.model.shape[1] == 2
                scale = start * math.exp(log_scale) if paired else 1.0
                utilities = scale * slope * ability + (0.0 if paired else items[:, 1:])
                total += float(losses(part, utilities).sum())
                gradient += ability_gradient(part, utilities, scale * slope[:, 0], ability)
            return total, gradient

        found = minimise(loss_and_gradient, np.zeros(len(expected) + 1), 100)
        return expected + found[:-1], start * math.exp(float(found[-1]))

    def _expected(self, examples: Examples, strong: str | None) -> tuple[Array, Array]:
        """Abilities (m,) before any outcome, and their standard deviations (m,)."""
        table: Mapping[str, float] = self.field["abilities"]
        spread = float(np.std(list(table.values())))
        expected, deviation = [], []
        for name in examples.models:
            known = ability_in(table, name)
            typical = self.field["strong" if name == strong else "weak"]
            expected.append(typical if known is None else known)
            deviation.append(spread if known is None else _TABLE_DEVIATION)
        return np.array(expected), np.array(deviation)


@dataclass(frozen=True, kw_only=True)
class GeneralGuess:
    """What a general router expects of the n queries and m models of a training.

    Attributes:
        router: name or path of the general router.
        models: m names.
        ability: (m,), as the labels place the models.
        weight: (d + 1, m), of the utilities.
        bias: (m,), of the utilities.
        encoded: the queries.
        rises: how the share of the general router may rise where queries are unfamiliar: direction (d,) and offset of
            a number that is 0 where the rise begins, and 1 where it ends.
        queries: number of labelled queries of the primary source.
    """

    router: str
    models: tuple[str, ...]
    ability: Array
    weight: Array
    bias: Array
    encoded: EncodedQueries
    rises: Sequence[tuple[Floats, float]]
    queries: int

    def blended(
        self, own: Floats, rows: npt.NDArray[np.int64], columns: list[int], outcomes: Sequence[Outcomes]
    ) -> tuple[GeneralPart, Floats, float]:
        """Choose the share of the general router, and how it rises, by the log loss of held-out outcomes.

        Args:
            own: float32 (k, c), the qualities of the trained router at held-out queries.
            rows: int64 (k,), these queries.
            columns: c models.
            outcomes: held-out outcomes of these models.

        Returns:
            The part that the general router plays, the blended quality (k, c), and its log loss (nats).
        """
        features, unit = self.encoded.features_at(rows), self.encoded.unit[rows]
        inside = [
            replace(one, query=np.searchsorted(rows, one.query), model=np.searchsorted(np.asarray(columns), one.model))
            for one in outcomes
        ]
        usual = EQUAL_SHARE / (EQUAL_SHARE + self.queries)
        tried = []
        weight, bias = self.weight[:, columns].astype(np.float32), self.bias[columns].astype(np.float32)
        for factor, (direction, offset) in product(SHARES, self.rises):
            least = factor * usual
            part = GeneralPart(weight, bias, least, (1 - least) * direction, least + (1 - least) * offset)
            quality = part.blended(own, features, unit)
            tried.append((mean_loss(inside, logit_of(quality, 1e-6)), part, quality))
        margin = LEAST_GAIN / max(sum(float(one.weight.sum()) for one in outcomes), 1e-12)
        within = min(loss for loss, _, _ in tried) + margin
        return next((part, quality, loss) for loss, part, quality in tried if loss <= within)

    def facts(self, part: GeneralPart, columns: list[int]) -> dict[str, Any]:
        """What a manifest says of the general router, under ``training``."""
        abilities = {self.models[i]: round(float(self.ability[i]), 4) for i in columns}
        return {"general": {"router": self.router, "share": part.least, "abilities": abilities}}


def ability_gradient(part: Outcomes, utilities: Array, steepness: Array, ability: Array) -> Array:
    """The gradient of the log loss of outcomes with respect to the abilities (m,) and the logarithm of the scale."""
    logit = logits(part, utilities)
    residual = part.weight * (sigmoid(logit) - part.target)
    by_model = residual * steepness[part.query]
    gradient = np.zeros(len(ability) + 1)
    gradient[:-1] += np.bincount(part.model[:, 0], by_model, len(ability))
    if part.model.shape[1] == 2:
        gradient[:-1] -= np.bincount(part.model[:, 1], by_model, len(ability))
        gradient[-1] = float(residual @ logit)
    return gradient
