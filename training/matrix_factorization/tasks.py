"""The expert on tasks: it guesses the task of a query, and knows how well each model does each task.

The label of one query says little; the mean over a task says a lot. Where records name their task, a router learns to
tell tasks apart. It averages the utilities of the likely tasks with those that it fits query by query: a logarithmic
opinion pool of two experts (Genest and Zidek 1986). Only training needs the names of tasks; a router reads text.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from ..examples import Examples
from ..fit.calibration import calibrate
from ..fit.factorization import Batch, Factors, deterministic
from ..fit.ranking import primary_outcomes
from ..log import TrainingLog

#: Fewest queries of a task; smaller tasks are left out.
LEAST_QUERIES = 10
#: Most queries that the guess is fitted to; more would cost time and teach nothing.
MOST_QUERIES = 20_000
#: Ridge penalties in nats: of the guess, on unit vectors, and of a task's utilities, like a prior of some 20 outcomes.
GUESS_L2, OFFSET_L2 = 0.01, 4.0
#: Nats over all held-out outcomes: a smaller gain is within chance.
LEAST_GAIN = 2.0
#: Weight of the per-query utilities in the average with those of the tasks.
SHARE = 0.5
#: Label of a query without a task.
UNKNOWN = -1


class TaskExpert(nn.Module):
    """Utilities ``softmax(features · weight + bias) · worth``."""

    weight: torch.Tensor
    bias: torch.Tensor
    worth: torch.Tensor

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor, worth: torch.Tensor) -> None:
        """Keep weight (d, t) and bias (t,) of the guess, and the models' utilities at each task, (t, m)."""
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        self.register_buffer("worth", worth)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Utilities (n, m) from features (n, d)."""
        return torch.softmax(torch.addmm(self.bias, features, self.weight), dim=1) @ self.worth

    def exported(self, worth: torch.Tensor) -> TaskExpert:
        """An expert with the same guess in float32 and with other utilities (t, m)."""
        return TaskExpert(self.weight.float(), self.bias.float(), worth.float())


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


def fit_guess(
    features: torch.Tensor, labels: npt.NDArray[np.int64], count: int, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight (d, t) and bias (t,), float64, of a multinomial logistic regression on the queries that have a task."""
    rows = np.random.default_rng(seed).permutation(np.flatnonzero(labels != UNKNOWN))[:MOST_QUERIES]
    x, y = features[torch.from_numpy(rows)].double(), torch.from_numpy(labels[rows])
    weight = torch.zeros(features.shape[1], count, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(count, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = cross_entropy(x @ weight + bias, y, reduction="sum") + GUESS_L2 / 2 * weight.square().sum()
        loss.backward()
        return loss

    with deterministic():
        optimiser.step(closure)
    return weight.detach(), bias.detach()


def fit_worth(
    labels: npt.NDArray[np.int64], count: int, examples: Examples, kept: npt.NDArray[np.bool_], ranking: Factors
) -> torch.Tensor:
    """The models' utilities at each task, float64 (t, m), by penalised maximum likelihood around the global ranking.

    Args:
        labels: int64 (n,), the task of each query.
        count: the number t of tasks.
        examples: outcomes over the n queries.
        kept: bool (n,), the queries whose outcomes count.
        ranking: the global ranking of the same outcomes.
    """
    outcomes = [Batch.of(part.of_queries(kept)) for part in (examples.preferences, examples.performances) if len(part)]
    shape = (count + 1, len(examples.models))  # the last row: no task
    offsets = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
    tasks = torch.from_numpy(np.where(labels == UNKNOWN, count, labels))
    optimiser = torch.optim.LBFGS([offsets], max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        utilities = ranking.bias + offsets[tasks]
        penalty = OFFSET_L2 / 2 * offsets.square().sum()
        loss = penalty + torch.stack([batch.losses(utilities, ranking.offsets).sum() for batch in outcomes]).sum()
        loss.backward()
        return loss

    with deterministic():
        optimiser.step(closure)
    return ranking.bias + offsets.detach()[:count]


def fit_expert(
    features: torch.Tensor, examples: Examples, kept: npt.NDArray[np.bool_], ranking: Factors, seed: int
) -> TaskExpert | None:
    """An expert fitted to the queries that bool (n,) keeps, on features float64 (n, d); None: fewer than two tasks."""
    count, labels = task_labels(examples, kept)
    if not count:
        return None
    weight, bias = fit_guess(features, labels, count, seed)
    return TaskExpert(weight, bias, fit_worth(labels, count, examples, kept, ranking))


def helps(
    fitted: torch.Tensor,
    pooled: torch.Tensor,
    examples: Examples,
    held_out: npt.NDArray[np.bool_],
    seed: int,
    log: TrainingLog,
) -> bool:
    """Whether utilities (n, m) pooled with those of the tasks predict held-out outcomes better; both are calibrated."""
    batches = primary_outcomes(examples, held_out)
    losses = [min(calibrate(one, batches, seed).log_loss.values()) for one in (fitted, pooled)]
    gain = (losses[0] - losses[1]) * sum(float(batch.weight.sum()) for batch in batches)
    log.step(phase="tasks", log_loss_without=losses[0], log_loss_with=losses[1], kept=gain > LEAST_GAIN)
    return gain > LEAST_GAIN
