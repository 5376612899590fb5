"""The expert on tasks: it guesses the task of a query, and knows how well each model does each task.

The label of one query says little; the mean over a task says a lot. Where records name their task, a router learns to
tell tasks apart. It averages the utilities of the likely tasks with those that it fits query by query: a logarithmic
opinion pool of two experts (Genest and Zidek 1986). Only training needs the names of tasks; a router reads text.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..examples import Examples, primary_outcomes
from ..export.graph_builder import GraphBuilder
from ..fit.calibration import calibrate
from ..fit.factorization import Array, Factors, Problem
from ..fit.minimise import minimise
from ..fit.ranking import LEAST_GAIN
from ..log import TrainingLog

#: Fewest queries of a task; smaller tasks are left out.
LEAST_QUERIES = 10
#: Most queries that the guess is fitted to; more would cost time and teach nothing.
MOST_QUERIES = 20_000
#: Ridge penalties in nats: of the guess, on unit vectors, and of a task's utilities, like a prior of some 20 outcomes.
GUESS_L2, OFFSET_L2 = 0.01, 4.0
#: Most iterations of the guess. More lower its loss and not that of held-out queries (measured on MMLU and MMLU-Pro).
GUESS_ITERATIONS = 60
#: Weight of the per-query utilities in the average with those of the tasks.
SHARE = 0.5
#: Label of a query without a task.
UNKNOWN = -1


@dataclass(frozen=True)
class TaskExpert:
    """Utilities ``softmax(features · weight + bias) · worth``.

    Attributes:
        weight: (d, t) of the guess.
        bias: (t,) of the guess.
        worth: (t, m), the models' utilities at each task.
    """

    weight: npt.NDArray[np.floating]
    bias: npt.NDArray[np.floating]
    worth: npt.NDArray[np.floating]

    def utilities(self, features: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        """Utilities (n, m) from features (n, d)."""
        return softmax(features @ self.weight + self.bias) @ self.worth

    def exported(self, worth: Array) -> TaskExpert:
        """An expert with the same guess in float32 and with other utilities (t, m)."""
        return TaskExpert(self.weight.astype(np.float32), self.bias.astype(np.float32), worth.astype(np.float32))

    def add_utilities(self, graph: GraphBuilder, features: str) -> str:
        """Add the nodes that compute the utilities from the features; return the name of the result."""
        names = graph.constant("task_weight", self.weight), graph.constant("task_bias", self.bias)
        likely = graph.node("Softmax", graph.node("Gemm", features, *names), axis=1)
        return graph.node("MatMul", likely, graph.constant("task_worth", self.worth))


def softmax(logits: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Probabilities (n, t) from logits (n, t)."""
    grown = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(grown / grown.sum(axis=1, keepdims=True))


def task_labels(examples: Examples, kept: npt.NDArray[np.bool_]) -> tuple[int, npt.NDArray[np.int64]]:
    """The number of tasks among some queries, and the task of each query: int64 (n,), `UNKNOWN` where it has none.

    Args:
        examples: n queries.
        kept: bool (n,), the queries that count; of these only queries of the primary source do.
    """
    labels = np.full(len(examples.queries), UNKNOWN, np.int64)
    rows = np.flatnonzero(kept & examples.primary_queries()).tolist() if examples.tasks else []
    named = [(row, task) for row in rows if (task := examples.tasks[row]) is not None]
    names, number = np.unique([task for _, task in named], return_inverse=True) if named else ([], np.zeros(0, int))
    large = np.flatnonzero(np.bincount(number, minlength=len(names)) >= LEAST_QUERIES)
    if len(large) < 2:
        return 0, labels
    of_name = np.full(len(names), UNKNOWN, np.int64)
    of_name[large] = np.arange(len(large))
    labels[[row for row, _ in named]] = of_name[number]
    return len(large), labels


def fit_guess(features: Array, labels: npt.NDArray[np.int64], count: int, seed: int) -> tuple[Array, Array]:
    """Weight (d, t) and bias (t,), float64, of a multinomial logistic regression on the queries that have a task."""
    rows = np.random.default_rng(seed).permutation(np.flatnonzero(labels != UNKNOWN))[:MOST_QUERIES]
    x, y = features[rows], labels[rows]
    each, shape = np.arange(len(rows)), (features.shape[1] + 1, count)

    def loss_and_gradient(point: Array) -> tuple[float, Array]:
        weight, bias = np.split(point.reshape(shape), [-1])
        likely = softmax(x @ weight + bias)
        loss = -np.log(np.maximum(likely[each, y], 1e-300)).sum() + GUESS_L2 / 2 * np.square(weight).sum()
        likely[each, y] -= 1
        gradient = np.concatenate([x.T @ likely + GUESS_L2 * weight, likely.sum(axis=0, keepdims=True)])
        return float(loss), gradient.ravel()

    found = minimise(loss_and_gradient, np.zeros(shape).ravel(), GUESS_ITERATIONS).reshape(shape)
    return found[:-1], found[-1]


def fit_worth(
    labels: npt.NDArray[np.int64], count: int, examples: Examples, kept: npt.NDArray[np.bool_], ranking: Factors
) -> Array:
    """The models' utilities at each task, float64 (t, m), by penalised maximum likelihood around the global ranking.

    Args:
        labels: int64 (n,), the task of each query.
        count: the number t of tasks.
        examples: outcomes over the n queries.
        kept: bool (n,), the queries whose outcomes count.
        ranking: the global ranking of the same outcomes.
    """
    from scipy.sparse import csr_array

    parts = [part.of_queries(kept) for part in (examples.preferences, examples.performances)]
    models, queries = len(examples.models), len(labels)
    tasks = np.where(labels == UNKNOWN, count, labels)  # the last: no task
    membership = csr_array((np.ones(queries), tasks, np.arange(queries + 1)), (queries, count + 1))
    problem = Problem(membership, [part for part in parts if len(part)], models)
    shape, each = (count + 1, models), np.eye(models)

    def loss_and_gradient(point: Array) -> tuple[float, Array]:
        offsets = point.reshape(shape)
        loss, _, _, gradient, _ = problem.loss(ranking.bias, ranking.offsets, offsets, each)
        return float(loss + OFFSET_L2 / 2 * np.square(offsets).sum()), (gradient + OFFSET_L2 * offsets).ravel()

    return ranking.bias + minimise(loss_and_gradient, np.zeros(shape).ravel(), 60).reshape(shape)[:count]


def fit_expert(
    features: Array, examples: Examples, kept: npt.NDArray[np.bool_], ranking: Factors, seed: int
) -> TaskExpert | None:
    """An expert fitted to the queries that bool (n,) keeps, on features float64 (n, d); None: fewer than two tasks."""
    count, labels = task_labels(examples, kept)
    if not count:
        return None
    weight, bias = fit_guess(features, labels, count, seed)
    return TaskExpert(weight, bias, fit_worth(labels, count, examples, kept, ranking))


def helps(
    usual: Array,
    other: Array,
    examples: Examples,
    held_out: npt.NDArray[np.bool_],
    seed: int,
    log: TrainingLog,
    phase: str,
) -> bool:
    """Whether other utilities (n, m) predict held-out outcomes clearly better than the usual ones; both calibrated."""
    outcomes = primary_outcomes(examples, held_out)
    losses = [min(calibrate(one, outcomes, seed).log_loss.values()) for one in (usual, other)]
    gain = (losses[0] - losses[1]) * sum(float(part.weight.sum()) for part in outcomes)
    log.step(phase=phase, log_loss_without=losses[0], log_loss_with=losses[1], kept=gain > LEAST_GAIN)
    return gain > LEAST_GAIN
