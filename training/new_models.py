"""Place new models in a router that is there already, from a few labels and without training it again.

What a router knows of a query is in the qualities of its models. The utility (logit) of a new model is taken to be
linear in theirs,

    u_new(q) = bias + sum over models m of weight[m] · u_m(q),

where a prior holds the weights near the mean of the pool, so that a few labels are enough: they mostly tell the bias,
how much better or worse the model is. More labels tell which models it resembles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..data.records import Record
from ..routers.base import sigmoid
from ..routers.blended import BlendedRouter, blend
from ..routers.bundle import (
    COMPANION,
    COMPANION_TOKENIZER,
    GENERAL,
    MODEL,
    RECORDS,
    TOKENIZER,
    VERIFIER,
    Manifest,
    check_replaceable,
    read_bundle,
)
from ..routers.decision import Floats, Model
from ..routers.errors import InputError, require
from ..routers.learned import LearnedRouter
from ..routers.loading import load
from ..routers.query import Query
from .examples import Examples, Ints, Outcomes, examples_of
from .export.gate import parity_gate
from .export.publish import ExportedCompanion, publish
from .fit.factorization import Array, Problem, logit_of
from .fit.minimise import minimise
from .one_thread import one_thread

#: Penalties: of the weights' distance from the mean of the pool, and of the bias.
WEIGHT_L2, BIAS_L2 = 10.0, 0.1
#: Qualities are kept this far from 0 and 1, where their logits are finite.
_EDGE = 1e-6


@one_thread()
def place_new_models(
    bundle: str | Path, records: Sequence[Record], out: str | Path, *, pool: Sequence[Model] = ()
) -> Path:
    """Add models to a router of any kind, from the records that mention them.

    The qualities of the models that it has stay as they are, and so do the pair, the thresholds, a guarantee and the
    drift reference.

    Args:
        bundle: a router with models of its own.
        records: performances of the new models, or preferences between them and others. Records that mention no new
            model have no effect; those marked "test" are left out.
        out: the folder of the new bundle.
        pool: new models with prices.

    Returns:
        The folder.

    Raises:
        InputError: it is a general router or a verifier, no record mentions a new model, or `out` holds something else.
        BundleError: the bundle cannot be trusted.
    """
    manifest, contents = read_bundle(bundle)
    if manifest.kind in {GENERAL, VERIFIER}:
        raise InputError(f"{bundle} is a {manifest.kind}; expected a router with models of its own")
    check_replaceable(Path(out))
    labels = _labels(manifest, records)
    router = load(bundle)
    fit = _fit(logit_of(router.quality(labels.examples.queries), _EDGE), labels)
    prices = {model.name: model for model in pool}

    placed = {name: int(count) for name, count in zip(labels.new, labels.counts(), strict=True)}
    return publish(
        out,
        replace(
            manifest,
            pool=(*manifest.pool, *(prices.get(name, Model(name)) for name in labels.new)),
            training={**manifest.training, "placed": {**manifest.training.get("placed", {}), **placed}},
        ),
        model=with_models(contents[MODEL], fit.weight, fit.bias),
        tokenizer_json=contents[TOKENIZER],
        gate=parity_gate(lambda queries: fit.widened(router, queries), labels.examples.queries),
        reference=lambda _: None if manifest.reference is None else dict(manifest.reference),
        records=contents.get(RECORDS),
        companion=_wider_companion(manifest, contents, fit),
    )


def _wider_companion(manifest: Manifest, contents: Mapping[str, bytes], fit: _Fit) -> ExportedCompanion | None:
    """The companion of the bundle with the new models; None: the bundle has none."""
    if manifest.companion is None:
        return None
    model = with_models(contents[COMPANION], fit.weight, fit.bias)
    return ExportedCompanion(model, contents[COMPANION_TOKENIZER], manifest.companion.truncation)


@dataclass(frozen=True)
class _Labels:
    """The outcomes of new models.

    Attributes:
        examples: of the records that mention a new model; its models are those of the pool, then the new ones.
        new: names of the new models.
    """

    examples: Examples
    new: list[str]

    @property
    def parts(self) -> list[Outcomes]:
        """Outcomes of both kinds."""
        return [part for part in (self.examples.performances, self.examples.preferences) if len(part)]

    def counts(self) -> Ints:
        """The number of outcomes of each new model."""
        columns = np.concatenate([part.model.ravel() for part in self.parts])
        return np.bincount(columns, minlength=len(self.examples.models))[-len(self.new) :]


def _labels(manifest: Manifest, records: Sequence[Record]) -> _Labels:
    known = [model.name for model in manifest.pool]
    usable = [record for record in records if record.split != "test"]
    new = sorted({name for record in usable for name in record.models}.difference(known))
    if not new:
        raise InputError(
            f"the records name no model that the router lacks; expected records of another model than {known}"
        )
    kept = [record for record in usable if set(record.models) & set(new)]
    examples = examples_of(kept, informative=False)
    names = (*known, *new)
    column = np.array([names.index(name) for name in examples.models])
    parts = {
        name: replace(part, model=column[part.model])
        for name, part in (("performances", examples.performances), ("preferences", examples.preferences))
        if len(part)
    }
    return _Labels(replace(examples, models=names, **parts), new)


@dataclass(frozen=True)
class _Fit:
    """Attributes: weight (m, k) and bias (k,) of k new models over the utilities of m models."""

    weight: Array
    bias: Array

    def quality(self, known: Floats) -> Floats:
        """Quality (n, k) of the new models, from the qualities (n, m) of the pool."""
        return np.asarray(sigmoid(logit_of(known, _EDGE) @ self.weight + self.bias), np.float32)

    def widened(self, router: LearnedRouter, queries: Sequence[Query]) -> Floats:
        """Quality (n, m + k) of the pool and of the new models.

        Where a router blends two qualities, a new model has one of each, so that it is blended as the others are.
        """
        queries = list(queries)
        if isinstance(router, BlendedRouter):
            parts = [router.parts([one]) for one in queries]
            own, general, share = (np.concatenate(part) for part in zip(*parts, strict=True))
            return blend(self._with_new(own), self._with_new(general), share)
        return self._with_new(np.concatenate([router.quality([one]) for one in queries]))

    def _with_new(self, known: Floats) -> Floats:
        return np.concatenate([known, self.quality(known)], axis=1)


def _fit(known: Array, labels: _Labels) -> _Fit:
    """Fit weights and biases to the outcomes by penalised maximum likelihood, from utilities (n, m) of the pool."""
    models, count = known.shape[1], len(labels.new)
    shape = (models + 1, count)
    mean = np.full((models, count), 1 / models)
    base = np.concatenate([known, known @ mean], axis=1)
    problem = Problem(known, labels.parts, models + count, base)
    of_new = np.concatenate([np.zeros((models, count)), np.eye(count)])  # the weights move the new models alone
    no_offsets = np.zeros((len(labels.examples.sources), models + count))

    def loss_and_gradient(point: Array) -> tuple[float, Array]:
        weight, bias = np.split(point.reshape(shape), [-1])
        every = np.concatenate([np.zeros(models), bias[0]])
        loss, by_bias, _, by_weight, _ = problem.loss(every, no_offsets, weight, of_new)
        total = loss + WEIGHT_L2 / 2 * np.square(weight).sum() + BIAS_L2 / 2 * np.square(bias).sum()
        gradient = np.concatenate([by_weight + WEIGHT_L2 * weight, by_bias[None, models:] + BIAS_L2 * bias])
        return float(total), gradient.ravel()

    weight, bias = np.split(minimise(loss_and_gradient, np.zeros(shape).ravel(), 200).reshape(shape), [-1])
    return _Fit(mean + weight, bias[0])


def with_models(model: bytes, weight: Array, bias: Array) -> bytes:
    """The graph of a router with further columns of the output ``quality``.

    Args:
        model: a graph with the output ``quality`` (n, m).
        weight: (m, k), from the logits of the qualities.
        bias: (k,).
    """
    onnx: Any = require("onnx", "train")
    loaded = onnx.load_from_string(model)
    graph = loaded.graph
    taken = {name for node in graph.node for name in (*node.input, *node.output)}
    prefix = next(f"placed_{number}_" for number in range(len(taken) + 1) if f"placed_{number}_known" not in taken)
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [f"{prefix}known" if name == "quality" else name for name in names]
    constants = {
        "least": np.float32(_EDGE),
        "most": np.float32(1 - _EDGE),
        "one": np.float32(1),
        "weight": weight.astype(np.float32),
        "bias": bias.astype(np.float32),
    }
    graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(value), prefix + name) for name, value in constants.items()
    )
    steps = [
        ("Clip", ["known", "least", "most"], "within"),
        ("Sub", ["one", "within"], "rest"),
        ("Div", ["within", "rest"], "odds"),
        ("Log", ["odds"], "logits"),
        ("Gemm", ["logits", "weight", "bias"], "utilities"),
        ("Sigmoid", ["utilities"], "new"),
    ]
    for operator, inputs, output in steps:
        graph.node.append(onnx.helper.make_node(operator, [prefix + name for name in inputs], [prefix + output]))
    graph.node.append(onnx.helper.make_node("Concat", [f"{prefix}known", f"{prefix}new"], ["quality"], axis=1))
    for output in graph.output:
        if output.name == "quality":
            output.type.tensor_type.shape.dim[1].dim_value += len(bias)
    return bytes(loaded.SerializeToString(deterministic=True))
