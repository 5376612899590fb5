"""Chooses which prompts to judge next, each with a known probability, so that the labels stay a fair sample."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..data.records import Record, record_key
from ..data.writers import write_rows
from ..routers.base import Router
from ..routers.bundle import Truncation
from ..routers.errors import InputError
from ..routers.general import GeneralRouter
from ..routers.loading import load
from ..routers.query import Query, prompt_key
from .candidates import Candidate
from .estimate import estimate_cost
from .prompts import PROMPT_COLUMNS, Prompt
from .sampling import Array, inclusion_probabilities, systematic_sample
from .usefulness import usefulness_of

#: Share of the choice that does not look at the usefulness of a prompt. No weight is more than its inverse times
#: the smallest one would be without a choice by usefulness.
FLOOR = 0.5
#: Standard deviations of the price of the chosen prompts that a budget leaves free.
_MARGIN = 2.0


@dataclass(frozen=True, kw_only=True)
class ChosenPrompts:
    """Prompts to judge next.

    Attributes:
        prompts: k prompts in the order of the file. Their weights make them stand for all prompts that they were chosen
            from: (traffic / probability), with a mean of 1.
        probability: (k,) the probability with which each was chosen.
        eligible: number of prompts that they were chosen from.
        labelled: number of prompts that were left out because they have a label.
        clusters: number of clusters that they are spread over.
        usd: expected price of asking all models for them; None: no model was given.

    Example:
        >>> from routelearn.labelling import Prompt, choose_prompts
        >>> prompts = [Prompt(query=f"How much is {number} + {number}?") for number in range(100)]
        >>> chosen = choose_prompts(prompts, 20)
        >>> len(chosen.prompts), {prompt.weight for prompt in chosen.prompts}, round(float(chosen.probability[0]), 3)
        (20, {1.0}, 0.2)
    """

    prompts: Sequence[Prompt]
    probability: Array
    eligible: int
    labelled: int
    clusters: int
    usd: float | None = None


def choose_prompts(
    prompts: Sequence[Prompt],
    count: int | None = None,
    *,
    labels: Sequence[Record] = (),
    router: Router | None = None,
    budget_usd: float | None = None,
    candidates: Sequence[Candidate] = (),
    floor: float = FLOOR,
    seed: int = 0,
) -> ChosenPrompts:
    """Choose prompts by systematic sampling with known probabilities, spread over the clusters of the prompts.

    Without a router the probabilities are in proportion to the traffic, which is the weight of a prompt. With one they
    rise with what the label of a prompt is expected to tell (`usefulness_of`); a share `floor` stays in proportion to
    the traffic, so that every prompt can be chosen.

    Args:
        prompts: the prompts; those that `labels` hold are left out.
        count: how many; all that are left where there are fewer. None: as many as the budget pays for.
        labels: records of the prompts that have a label.
        router: the router so far, of the two models that the labels are for.
        budget_usd: USD that asking all candidates may cost; the expected price stays two standard deviations below.
        candidates: the models to be asked, with prices; for a budget alone.
        floor: share of the choice that does not depend on the router, above 0 and at most 1.
        seed: the same seed chooses the same prompts.

    Raises:
        InputError: an argument is out of range, a price is missing, the budget pays for no prompt, or every prompt has
            a label.
        MissingExtraError: scikit-learn is not installed.
    """
    _check(count, budget_usd, floor)
    done = {record_key(record) for record in labels}
    left = [prompt for prompt in prompts if prompt_key(prompt.query) not in done]
    if not left:
        raise InputError(f"each of the {len(prompts)} prompts has a label; expected some without one")
    queries = [prompt.query for prompt in left]
    traffic = np.array([prompt.weight for prompt in left], np.float64)
    size = traffic / traffic.sum() if router is None else _sizes(traffic, router, queries, floor)
    costs = _costs(queries, candidates)
    wanted = len(left) if count is None else min(count, len(left))
    if budget_usd is not None:
        wanted = _within(budget_usd, size, costs, wanted)
    order, clusters = spread_order(queries, seed)
    probability = inclusion_probabilities(size, wanted)
    rows = systematic_sample(probability, order, np.random.default_rng(seed))
    weight = traffic[rows] / probability[rows]
    weight = np.maximum(weight / weight.mean(), 1e-9)
    chosen = [replace(left[row], weight=round(float(one), 9)) for row, one in zip(rows.tolist(), weight, strict=True)]
    return ChosenPrompts(
        prompts=chosen,
        probability=probability[rows],
        eligible=len(left),
        labelled=len(prompts) - len(left),
        clusters=clusters,
        usd=float(costs[rows].sum()) if candidates else None,
    )


def write_prompts(prompts: Sequence[Prompt], path: str | Path) -> Path:
    """Write prompts as parquet, jsonl or csv, for `read_prompts`; the suffix of the path decides.

    Raises:
        InputError: the suffix is another one.
    """
    path = Path(path)
    rows: list[dict[str, Any]] = []
    for prompt in prompts:
        is_chat = not isinstance(prompt.query, str)
        row = {name: getattr(prompt, name) for name in PROMPT_COLUMNS}
        row["prompt"] = None if is_chat else prompt.query
        row["messages"] = json.dumps(list(prompt.query), ensure_ascii=False) if is_chat else None
        rows.append(row)
    write_rows(rows, ("prompt", "messages", *PROMPT_COLUMNS), path)
    return path


def spread_order(queries: Sequence[Query], seed: int) -> tuple[np.ndarray, int]:
    """An order in which like queries stand together, int64 (n,), and the number of clusters in it.

    The clusters are those of k-means on static vectors, the easy ones first; in each the queries stand by the
    difficulty that the general router expects, which rises in one cluster and falls in the next.
    """
    from ..training.encoders.static import static_encoder
    from ..training.encoders.static_network import encode_queries
    from ..training.fit.novelty import centroids_of

    unit = encode_queries(queries, static_encoder(), Truncation(distinct=True)).unit
    centroids = centroids_of(unit, seed)
    cluster = np.argmax(unit @ centroids.T, axis=1)
    general = load("general")
    assert isinstance(general, GeneralRouter)
    hard = np.asarray(general.difficulty(queries), np.float64)
    sizes = np.maximum(np.bincount(cluster, minlength=len(centroids)), 1)
    rank = np.argsort(np.argsort(np.bincount(cluster, hard, len(centroids)) / sizes, kind="stable"), kind="stable")
    place = rank[cluster]
    order = np.lexsort((np.where(place % 2, -hard, hard), place))
    return order.astype(np.int64), len(np.unique(cluster))


def _check(count: int | None, budget_usd: float | None, floor: float) -> None:
    if count is None and budget_usd is None:
        raise InputError("neither a count nor a budget was given; expected one of them")
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
        raise InputError(f"count is {count!r:.80}; expected a whole number from 1")
    if budget_usd is not None and not budget_usd > 0:
        raise InputError(f"budget_usd is {budget_usd!r:.80}; expected USD above 0")
    if not 0 < floor <= 1:
        raise InputError(f"floor is {floor!r:.80}; expected a number above 0 and at most 1")


def _sizes(traffic: Array, router: Router, queries: Sequence[Query], floor: float) -> Array:
    """Sizes (n,) that rise with the usefulness of a label, with a sum of 1."""
    useful = traffic * usefulness_of(router, queries)
    return np.asarray(floor * traffic / traffic.sum() + (1 - floor) * useful / useful.sum())


def _costs(queries: Sequence[Query], candidates: Sequence[Candidate]) -> Array:
    """USD (n,) of asking all candidates for each query."""
    total = np.zeros(len(queries))
    for one in candidates:
        for row, query in enumerate(queries):
            usd = estimate_cost(one, [query], {}).usd
            if usd is None:
                raise InputError(f"no price of {one.name!r} is known; expected input_price and output_price")
            total[row] += usd
    return total


def _within(budget_usd: float, size: Array, costs: Array, most: int) -> int:
    """The largest count whose price is below the budget but for chance; the count does not depend on the draw."""

    def price(count: int) -> float:
        chance = inclusion_probabilities(size, count)
        expected = float(chance @ costs)
        # The count is fixed, so that only differences from the mean price add up by chance (Hajek 1964).
        variance = (chance * (1 - chance)) @ np.square(costs - expected / count)
        return expected + _MARGIN * math.sqrt(float(variance))

    if price(1) > budget_usd:
        raise InputError(
            f"asking all models for one prompt costs up to {price(1):.4f} USD; expected a budget above that, not "
            f"{budget_usd:g}"
        )
    return _largest(lambda count: price(count) <= budget_usd, most)


def _largest(holds: Callable[[int], bool], most: int) -> int:
    """The largest number from 1 to `most` for which a condition holds that does not hold again once it fails."""
    low, high = 1, most + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
