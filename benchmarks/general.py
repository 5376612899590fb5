"""The general routers on data that they were not trained on: sources left out one at a time, and RouteLLM's sets.

Run: ROUTELEARN_DATA=FOLDER python benchmarks/general.py

Every figure comes from the recipe of models/general or models/general-minilm, trained without the source that it is
measured on, without sources that share prompts with it, and without near copies of its prompts. An hour on one core,
most of it for the vectors of the transformer, which are kept.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, cached_property

import numpy as np
import numpy.typing as npt
from common import DATA, OUT, cached, interval, say, write_section
from general_sources import read_sources, shipped_sources
from general_test_sets import POOLED, Test, routellm_tests, source_tests
from ship_general import SETTINGS

from routelearn.data.near_copies import near_copies
from routelearn.routers.abilities import canonical_name
from routelearn.routers.loading import load
from routelearn.routers.placement import ability_at, quality_of
from routelearn.routers.rules import RulesRouter
from routelearn.routers.shipped import shipped_names
from routelearn.training.examples import Examples, examples_of
from routelearn.training.fit.metrics import bootstrap_interval, routing_curve
from routelearn.training.fit.minimise import Array
from routelearn.training.general.config import GeneralConfig
from routelearn.training.general.item_response import ItemResponse
from routelearn.training.general.train import (
    STRONG_QUANTILE,
    WEAK_QUANTILE,
    fit_examples,
    held_out_losses,
    held_out_queries,
    text_features,
    traffic_items,
)
from routelearn.training.one_thread import one_thread

#: How the two models of a test are placed.
PLACED = ("tier", "table", "score")


class Trainer:
    """The records of all shipped sources, encoded once; fits the recipe without some of them."""

    def __init__(self, config: GeneralConfig) -> None:
        """Read and encode."""
        if config.layers is not None:
            config = replace(config, vectors=str(OUT / "general" / "vectors.npz"))
        self.config = config
        self.examples: Examples = examples_of(read_sources(DATA, shipped_sources()))
        self.reader = text_features(config)
        self.features, _ = self.reader.learn(self.examples.queries)

    @cached_property
    def prompts(self) -> list[str]:
        """The training prompts."""
        return [str(query) for query in self.examples.queries]

    def items(self, test: Test) -> tuple[Examples, ItemResponse, Array, int]:
        """The examples without a test's sources, the fit to them without near copies, the test's items, the copies."""
        kept = np.ones(len(self.prompts), np.bool_)
        kept[[left for left, _, _ in near_copies(self.prompts, test.prompts)]] = False
        examples = without_sources(self.examples, test.left_out)
        fit = fit_examples(self.features, examples, self.config, kept)
        _, shrink, level = traffic_items(fit, self.features, examples, self.config)
        found = fit.items(self.reader.of(test.prompts))
        found[:, 1] += level
        return examples, fit, shrink * found, int((~kept).sum())

    def held_out(self) -> dict[str, object]:
        """Log loss (nats) and number of the outcomes of each held-out query of known sources, summed over outcomes."""
        say("general: held-out queries")
        held_out = held_out_queries(self.examples, self.config.seed)
        outcomes = self.examples.performances.of_queries(held_out)
        with one_thread():
            lost = held_out_losses(self.features, self.examples, self.config, held_out)
        rows, row = np.unique(outcomes.query, return_inverse=True)
        sums = (np.bincount(row, values, len(rows)) for values in (lost, outcomes.weight))
        return dict(zip(("loss", "outcomes"), (values.tolist() for values in sums), strict=True))


def without_sources(examples: Examples, names: set[str]) -> Examples:
    """The examples without the outcomes of some sources."""
    numbers = [i for i, source in enumerate(examples.sources) if source in names]
    parts = [part.rows(~np.isin(part.source, numbers)) for part in (examples.performances, examples.preferences)]
    return replace(examples, performances=parts[0], preferences=parts[1])


def measure(trainer: Trainer, test: Test) -> dict[str, object]:
    """Scores of a test's prompts, placed in each way, and its outcomes."""
    say(f"general: {test.name}, {len(test.prompts):,} prompts")
    with one_thread():
        examples, fit, items, copies = trainer.items(test)
    seen = np.unique(np.concatenate([examples.performances.model.ravel(), examples.preferences.model.ravel()]))
    place = {name: i for i, name in enumerate(examples.models)}
    typical = np.quantile(fit.ability[seen], [STRONG_QUANTILE, WEAK_QUANTILE])
    scores = {}
    for way in PLACED:
        qualities = []
        for side, truth in enumerate((test.strong, test.weak)):
            known = [place[name] for name in map(canonical_name, test.models[side]) if place.get(name, -1) in set(seen)]
            abilities = fit.ability[known] if way == "table" and known else typical[side : side + 1]
            if way == "score":
                abilities = np.array([ability_at(items, float(np.clip(truth.mean(), 0.01, 0.99)))])
            qualities.append(quality_of(items, abilities).mean(axis=1))
        scores[way] = (qualities[0] - qualities[1]).tolist()
    return {
        "name": test.name,
        "copies": copies,
        "scores": scores,
        "length": [float(len(prompt)) for prompt in test.prompts],
        "strong": test.strong.tolist(),
        "weak": test.weak.tolist(),
    }


def measured(router: str, tests: list[Test]) -> tuple[Rows, dict[str, list[float]]]:
    """What a router gives on each test, and on held-out queries, from the cache where it is there."""
    trainer = cache(lambda: Trainer(SETTINGS[router]))
    rows = [cached(f"general/{router}/{test.name}", lambda test=test: measure(trainer(), test)) for test in tests]
    return rows, cached(f"general/{router}/held_out_queries", lambda: trainer().held_out())


def loss_line(first: dict[str, list[float]], second: dict[str, list[float]]) -> str:
    """The log losses of both routers, and their difference with its interval over queries."""
    count = np.asarray(first["outcomes"])
    before, after = np.asarray(first["loss"]), np.asarray(second["loss"])

    def less(rows: npt.NDArray[np.int64]) -> float:
        return float((after - before)[rows].sum() / count[rows].sum())

    order = np.arange(len(count))
    losses = [values.sum() / count.sum() for values in (before, after)]
    return (
        f"Log loss of the outcomes of {len(count):,} held-out queries of known sources: general {losses[0]:.4f}, "
        f"general-minilm {losses[1]:.4f}, difference {less(order):.4f} ({interval(bootstrap_interval(less, order))})."
    )


def apgr(score: Sequence[float], strong: Sequence[float], weak: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """APGR with its 95 % interval over prompts."""
    arrays = [np.asarray(values, np.float64) for values in (score, strong, weak)]

    def statistic(rows: npt.NDArray[np.int64]) -> float:
        return routing_curve(arrays[0][rows], arrays[1][rows], arrays[2][rows]).apgr

    rows = np.arange(len(arrays[0]))
    return statistic(rows), bootstrap_interval(statistic, rows)


def cell(values: tuple[float, tuple[float, float]]) -> str:
    """As text."""
    return f"{values[0]:.3f} ({interval(values[1])})"


#: Rows of one router, one for each test.
Rows = list[dict[str, object]]


def chosen(row: dict[str, object]) -> npt.NDArray[np.int64]:
    """The prompts of a source that are in the pooled test."""
    return np.random.default_rng(0).permutation(len(row["strong"]))[:POOLED]  # type: ignore[arg-type]


def pooled_row(rows: Rows) -> dict[str, object]:
    """The pooled test of some sources, as one more row."""

    def pool(of: Callable[[dict[str, object]], object]) -> list[float]:
        return np.concatenate([np.asarray(of(row), np.float64)[chosen(row)] for row in rows]).tolist()

    columns = {name: pool(lambda row, name=name: row[name]) for name in ("rules", "length", "strong", "weak")}
    scores = {way: pool(lambda row, way=way: row["scores"][way]) for way in PLACED}
    return {"name": f"**pooled**, {POOLED} of each", "scores": scores, **columns}


def source_lines(rows: Rows) -> list[str]:
    """The table of sources that were left out, and the pooled test."""
    columns: dict[str, Callable[[dict[str, object]], object]] = {
        way: lambda row, way=way: row["scores"][way]  # type: ignore[index, misc]
        for way in PLACED
    }
    columns |= {name: lambda row, name=name: row[name] for name in ("rules", "length")}  # type: ignore[misc]
    text = ["| source | prompts | " + " | ".join(columns) + " |", "|---|---|" + "---|" * len(columns)]
    for row in [*rows, pooled_row(rows)]:
        cells = [cell(apgr(of(row), row["strong"], row["weak"])) for of in columns.values()]  # type: ignore[arg-type]
        text.append(f"| {row['name']} | {len(row['strong']):,} | " + " | ".join(cells) + " |")  # type: ignore[arg-type]
    return text


def difference_lines(rows: dict[str, Rows], sources: int) -> list[str]:
    """The table of what general-minilm gains over general, with paired intervals; the first rows are the sources."""
    text = ["| test | " + " | ".join(PLACED) + " |", "|---|" + "---|" * len(PLACED)]
    static, transformer = ([pooled_row(some[:sources]), *some] for some in rows.values())
    for before, after in zip(static, transformer, strict=True):
        strong, weak = np.asarray(before["strong"]), np.asarray(before["weak"])
        cells = []
        for way in PLACED:
            scores = [np.asarray(row["scores"][way]) for row in (before, after)]  # type: ignore[index]

            def gain(
                rows: npt.NDArray[np.int64], scores: list[Array] = scores, s: Array = strong, w: Array = weak
            ) -> float:
                first, second = (routing_curve(score[rows], s[rows], w[rows]).apgr for score in scores)
                return second - first

            order = np.arange(len(strong))
            cells.append(cell((gain(order), bootstrap_interval(gain, order))))
        text.append(f"| {before['name']} | " + " | ".join(cells) + " |")
    return text


def routellm_lines(rows: dict[str, Rows]) -> list[str]:
    """The table of RouteLLM's sets."""
    text = [
        "| set | router | questions | near copies left out | APGR, tier | APGR, table | APGR, score "
        "| strong calls for 99 % of GPT-4's score, table |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for router, row in [
        (router, row) for several in zip(*rows.values(), strict=True) for router, row in zip(rows, several, strict=True)
    ]:
        strong, weak = np.asarray(row["strong"]), np.asarray(row["weak"])
        by_way = {way: np.asarray(row["scores"][way]) for way in PLACED}  # type: ignore[index]

        def calls(
            rows: npt.NDArray[np.int64], by_way: dict[str, Array] = by_way, s: Array = strong, w: Array = weak
        ) -> float:
            return routing_curve(by_way["table"][rows], s[rows], w[rows]).share_for(0.99 * float(s[rows].mean()))

        order = np.arange(len(strong))
        cells = [cell(apgr(by_way[way].tolist(), strong.tolist(), weak.tolist())) for way in PLACED]
        cells.append(cell((calls(order), bootstrap_interval(calls, order))))
        text.append(f"| {row['name']} | {router} | {len(strong):,} | {row['copies']} | " + " | ".join(cells) + " |")
    return text


def latency_lines(prompts: list[str]) -> list[str]:
    """How long one query takes with each router, in turn, on one thread."""
    routers = {name: load(name, threads=1) for name in SETTINGS if name in shipped_names()}
    times: dict[str, list[float]] = {name: [] for name in routers}
    for prompt in prompts:
        for name, router in routers.items():
            begin = time.perf_counter()
            router.route(prompt)
            times[name].append(time.perf_counter() - begin)
    median = {name: float(np.median(values)) for name, values in times.items()}
    return [
        f"One query ({len(prompts):,} prompts of all sources, the shipped routers in turn, one thread, the median, "
        "beside other programs): "
        + ", ".join(
            f"{name} {1e6 * value:,.0f} µs ({value / median['general']:,.0f} times general)"
            for name, value in median.items()
        )
        + "."
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    sources, sets = source_tests(), routellm_tests()
    found = {router: measured(router, [*sources, *sets]) for router in SETTINGS}
    rows = {router: of_router for router, (of_router, _) in found.items()}
    by_rules = [RulesRouter().score(test.prompts).tolist() for test in [*sources, *sets]]
    for of_router in rows.values():
        for row, scores in zip(of_router, by_rules, strict=True):
            row["rules"] = scores
    text = [
        "APGR with its 95 % bootstrap interval over prompts; .5 is random. The columns say how the two models are "
        "placed: as a typical strong and a typical weak model (tier), by the table of abilities, learned from the "
        "other sources (table), or by the mean scores of the two models on the test (score), which takes labels or a "
        "published figure. "
        "rules: the default rules, whose weights were fitted on all of these sources (fitted without each source they "
        "do as well: [the default rules](#the-default-rules)). length: longer prompts go to strong.",
        "",
    ]
    for router, of_router in rows.items():
        text += [
            f"### Each source left out of the training: {router}",
            "",
            *source_lines(of_router[: len(sources)]),
            "",
        ]
    text += [
        "### RouteLLM's sets, GPT-4 over Mixtral; none of their questions was trained on",
        "",
        *routellm_lines({router: of_router[len(sources) :] for router, of_router in rows.items()}),
        "",
        "### What general-minilm gains over general: difference of the APGR on the same prompts, with paired intervals",
        "",
        *difference_lines(rows, len(sources)),
        "",
        loss_line(*(held_out for _, held_out in found.values())),
        "",
        *latency_lines([prompt for test in sources for prompt in test.prompts[:40]]),
    ]
    write_section("The general router", "python benchmarks/general.py", text)


if __name__ == "__main__":
    main()
