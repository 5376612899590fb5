"""Cascades on real answers: the verifier's worth, and cascading beside routing on the same questions.

Run: python benchmarks/cascade.py [--sets gsm8k mmlu_pro math alpaca]
GSM8K in five folds (every question is judged by a verifier and a router that were not trained on it); MMLU-Pro, MATH
level 5 and AlpacaEval by the splits that the files have. Routers see the same training questions. Prices are those of
benchmarks/prices.json and PRICES below. The verifiers take some two hours on one core; bundles stay in benchmarks/out,
so that a stopped run goes on. Reads $ROUTELEARN_DATA (default ../shared/data). Writes a section of docs/results.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import DATA, ROOT, STRONG, WEAK, bundle, cached, routellm, say, without_leaks, write_section

from routelearn.cascade.backends import Answer
from routelearn.cascade.cascade import Cascade
from routelearn.cascade.confidence import Ask, Estimate, joint_confidence
from routelearn.cascade.tiers import Tier
from routelearn.cascade.verifier import Verifier, load_verifier
from routelearn.data.parser import ReadOptions
from routelearn.data.readers import read_records
from routelearn.data.records import PerformanceRecord, Record
from routelearn.data.splits import split_by_prompt
from routelearn.evaluation.cascade_plan.answered_queries import AnsweredQueries, answered_queries
from routelearn.evaluation.cascade_plan.plan import plan_cascade
from routelearn.evaluation.pair import groups_of
from routelearn.routers.base import Model
from routelearn.routers.learned import LearnedRouter, load
from routelearn.routers.query import Query
from routelearn.training.fit.metrics import (
    Array,
    auroc,
    expected_calibration_error,
    percentile_interval,
    resamples,
    routing_curve,
)
from routelearn.training.matrix_factorization.train import MatrixFactorizationConfig, train_matrix_factorization
from routelearn.training.similarity.train import SimilarityConfig, train_similarity
from routelearn.training.verifier.train import VerifierConfig, train_verifier

BOOTSTRAP = 1000
FOLDS = 5
#: USD per million tokens, list prices of 2024, beside those of prices.json.
PRICES = {STRONG: Model(STRONG, 10.0, 30.0), WEAK: Model(WEAK, 0.6, 0.6)}


@dataclass(frozen=True)
class Setting:
    """A set of questions with weak's answers.

    Attributes:
        title: heading.
        strong: the strong model, whose scores are known.
        weak: the weak models, each a cascade of its own; one verifier learns from the answers of all.
        output_tokens: length of strong's answers, where the file has none.
        training: of the verifier.
    """

    title: str
    strong: str
    weak: tuple[str, ...]
    output_tokens: int | None
    training: dict[str, Any]


SETTINGS = {
    "gsm8k": Setting("GSM8K, five folds", STRONG, (WEAK,), None, {"epochs": 3, "learning_rate": 1e-4}),
    "mmlu_pro": Setting(
        "MMLU-Pro",
        "gemini-1.5-pro-002",
        ("Mixtral-8x7B-Instruct-v0.1", "Meta-Llama-3_1-8B-Instruct"),
        300,
        {"epochs": 1},
    ),
    "math": Setting(
        "MATH level 5",
        "gpt-4o-2024-08-06",
        ("claude-3-haiku-20240307", "Meta-Llama-3.1-8B-Instruct"),
        600,
        {"epochs": 3, "learning_rate": 1e-4},
    ),
}
WIDE = {
    "mmlu_pro": ("mmlu_pro/performance_wide.parquet", "mmlu_pro/responses.parquet"),
    "math": ("zeroeval/math_level5_wide.parquet", "zeroeval/math_level5_responses.parquet"),
}


def parts(name: str) -> list[tuple[list[Record], list[Record]]]:
    """Training and test records, a pair for every fold."""
    setting = SETTINGS[name]
    if name == "gsm8k":
        folds = split_by_prompt(routellm("gsm8k"), (1 / FOLDS,) * FOLDS, 0)
        found = []
        for number, test in enumerate(folds):
            training = [record for other, fold in enumerate(folds) if other != number for record in fold]
            found.append((training, without_leaks(training, test)[0]))
        return found
    wide, answers = (read_records(DATA / file).records for file in WIDE[name])
    names = {setting.strong, *setting.weak}
    # Strong's scores from the wide file; weak's with their answers.
    records = [r for r in wide if r.models[0] == setting.strong] + [r for r in answers if r.models[0] in names]
    training = [record for record in records if record.split != "test"]
    test = [record for record in records if record.split == "test"]
    return [(training, without_leaks(training, test)[0])]


def router_of(kind: str, name: str, fold: int, training: list[Record], setting: Setting) -> LearnedRouter:
    pair: dict[str, Any] = {"strong": setting.strong, "weak": setting.weak[0]}

    def train(out: Path) -> Path:
        if kind == "mf":
            return train_matrix_factorization(training, out, MatrixFactorizationConfig(**pair))
        return train_similarity(training, out, SimilarityConfig(**pair))

    return load(bundle(f"cascade-{name}-{fold}-{kind}", train))


def verifier_of(name: str, fold: int, training: list[Record]) -> Verifier:
    setting = SETTINGS[name]
    config = VerifierConfig(models=setting.weak, strong=setting.strong, resume=True, **setting.training)
    return load_verifier(bundle(f"cascade-{name}-{fold}-verifier", lambda out: train_verifier(training, out, config)))


def prices() -> dict[str, Model]:
    known = json.loads((ROOT / "benchmarks" / "prices.json").read_text())
    return {**{name: Model(name, *pair) for name, pair in known.items()}, **PRICES}


def measure(name: str) -> dict[str, Any]:
    """Scores, confidence and known answers of every test question; then APGR and differences."""
    setting, priced = SETTINGS[name], prices()
    found: dict[str, dict[str, list[Any]]] = {weak: {} for weak in setting.weak}
    replays: list[dict[str, Any]] = []
    for fold, (training, test) in enumerate(parts(name)):
        routers = {kind: router_of(kind, name, fold, training, setting) for kind in ("mf", "similarity")}
        verifier = verifier_of(name, fold, training)
        say(f"{name} {fold}: trained")
        for weak in setting.weak:
            asked = answered_queries(test, priced[setting.strong], priced[weak], setting.output_tokens)
            row = found[weak]
            row.setdefault("asked", []).append(asked)
            confidence = verifier.confidence(asked.queries, asked.answers).astype(np.float64)
            row.setdefault("confidence", []).append(confidence)
            for kind, router in routers.items():
                row.setdefault(kind, []).append(router.win_rate(asked.queries, setting.strong, weak))
                quality = router.quality(asked.queries)[:, router.index(setting.strong)].astype(np.float64)
                row.setdefault(f"joint, {kind}", []).append(1 - joint_confidence(confidence, quality))
                own = 1 - router.quality(asked.queries)[:, router.index(weak)]
                row.setdefault(f"weak's quality, {kind}", []).append(own)
            if name == "gsm8k":  # strong's own answers are on record there, so that the costs are those of real answers
                replays.append(replay(test, verifier, routers["mf"], priced[setting.strong], priced[weak], None))
    return {
        "pairs": {weak: compare(row) for weak, row in found.items()},
        "replays": replays,
    }


def compare(row: dict[str, list[Any]]) -> dict[str, Any]:
    """APGR of every policy over all test questions, with paired differences to the better router."""
    asked: list[AnsweredQueries] = row["asked"]
    strong, weak = (np.concatenate([getattr(one, side) for one in asked]) for side in ("strong", "weak"))
    keys = [key for one in asked for key in one.keys]
    confidence = np.concatenate(row["confidence"])
    policies = {kind: np.concatenate(row[kind]).astype(np.float64) for kind in ("mf", "similarity")}
    policies["cascade"] = 1 - confidence
    policies |= {kind: np.concatenate(row[kind]) for kind in ("joint, mf", "joint, similarity")}
    value = {name: routing_curve(scores, strong, weak).apgr for name, scores in policies.items()}
    best = max(("mf", "similarity"), key=lambda kind: value[kind])
    good = weak >= 0.5
    drawn: dict[str, list[float]] = {name: [] for name in policies}
    aurocs = []
    for rows in resamples(groups_of(keys), BOOTSTRAP, 0):
        for name, scores in policies.items():
            drawn[name].append(routing_curve(scores[rows], strong[rows], weak[rows]).apgr)
        aurocs.append(auroc(confidence[rows], good[rows]))
    return {
        "questions": len(strong),
        "strong": float(strong.mean()),
        "weak": float(weak.mean()),
        "best_router": best,
        "auroc": [auroc(confidence, good), *percentile_interval(aurocs)],
        "router_auroc": auroc(1 - np.concatenate(row[f"weak's quality, {best}"]), good),
        "ece": expected_calibration_error(confidence, good.astype(np.float64)),
        "apgr": {name: [value[name], *percentile_interval(drawn[name])] for name in policies},
        "less_best_router": {
            name: [
                value[name] - value[best],
                *percentile_interval([a - b for a, b in zip(drawn[name], drawn[best], strict=True)]),
            ]
            for name in policies
            if name != best
        },
        "curve": {name: curve_of(policies[name], strong, weak) for name in (best, "cascade", f"joint, {best}")},
    }


def curve_of(scores: Array, strong: Array, weak: Array) -> list[tuple[float, float]]:
    """(strong share, mean score) points."""
    curve = routing_curve(scores, strong, weak)
    return list(zip(curve.share.tolist(), curve.quality.tolist(), strict=True))


def limits(name: str) -> list[str]:
    """What verifiers of a given AUROC, wrong independently of everything else, would reach: what there is to gain."""
    setting, priced, random = SETTINGS[name], prices(), np.random.default_rng(0)
    text = [
        "A simulated verifier that errs independently of the question would reach (AUROC: APGR):",
        "",
    ]
    for weak in setting.weak:
        asked = [
            answered_queries(test, priced[setting.strong], priced[weak], setting.output_tokens)
            for _, test in parts(name)
        ]
        strong, right = (np.concatenate([getattr(one, side) for one in asked]) for side in ("strong", "weak"))
        good = right >= 0.5
        found = []
        for distance in (0.5, 0.75, 1.0, 1.5, 20.0):
            drawn = [distance * good + random.standard_normal(len(good)) for _ in range(20)]
            known = np.mean([auroc(values, good) for values in drawn])
            reached = np.mean([routing_curve(-values, strong, right).apgr for values in drawn])
            found.append(f"{known:.2f}: {reached:.3f}")
        text.append(
            f"- {weak}: {', '.join(found)}. Strong is right on {strong[~good].mean():.1%} of what weak gets wrong, "
            f"and wrong on {1 - strong[good].mean():.1%} of what weak gets right."
        )
    return [*text, ""]


class Known:
    """A `Confidence` that was computed beforehand: the replay checks the accounting, not the verifier again."""

    def __init__(self, confidence: dict[str, float]) -> None:
        self._confidence = confidence

    async def estimate(self, query: Query, answer: Answer, ask: Ask, prior: float | None = None) -> Estimate:
        """See `Confidence.estimate`."""
        return Estimate(self._confidence[str(query)])


def replay(
    test: list[Record],
    verifier: Verifier,
    router: LearnedRouter | None,
    strong: Model,
    weak: Model,
    output_tokens: int | None,
) -> dict[str, Any]:
    """Plan on half of the questions, then run a real cascade over that half and over the other one."""
    halves = split_by_prompt(test, (0.5, 0.5), 0)
    options: dict[str, Any] = {"strong": strong, "weak": weak, "output_tokens": output_tokens}
    plan = plan_cascade(halves[0], verifier, router=router, bootstrap=20, **options)
    point = plan.best["cascade"] or plan.curves["cascade"][len(plan.curves["cascade"]) // 2]
    assert point.threshold is not None
    result: dict[str, Any] = {"expected": point.cost, "recommendation": plan.recommendation}
    for half, records in zip(("same", "other"), halves, strict=True):
        result[half] = run_cascade(records, verifier, strong, weak, point.threshold, output_tokens)
    return result


def run_cascade(
    records: list[Record], verifier: Verifier, strong: Model, weak: Model, threshold: float, output_tokens: int | None
) -> dict[str, float]:
    """USD a thousand queries that a cascade over recorded answers accounts for, and its escalation rate."""
    asked = answered_queries(records, strong, weak, output_tokens)
    confidence = verifier.confidence(asked.queries, asked.answers)
    known = Known({str(query): float(c) for query, c in zip(asked.queries, confidence, strict=True)})
    weak_answer = dict(zip(map(str, asked.queries), asked.answers, strict=True))
    strong_answer = {
        str(record.query): record.response
        for record in records
        if isinstance(record, PerformanceRecord) and record.model == strong.name
    }

    def ask_strong(query: Query) -> Answer | str:
        answer = strong_answer[str(query)]
        if answer is not None:
            return answer
        return "x" * (4 * output_tokens) if output_tokens else weak_answer[str(query)]

    cascade = Cascade([Tier(weak, lambda query: weak_answer[str(query)], known, threshold), Tier(strong, ask_strong)])

    async def run() -> list[Any]:
        return [await cascade.arun(query) for query in asked.queries]

    results = asyncio.run(run())
    return {
        "cost": 1000 * float(np.mean([one.cost_usd for one in results])),
        "escalation_rate": float(np.mean([one.escalated for one in results])),
        "queries": len(results),
    }


def alpaca() -> dict[str, Any]:
    """A verifier of AlpacaEval answers: at least as good as GPT-4's?"""
    options = ReadOptions(skip_bad=True)  # the reference's own answers have no score
    records = [
        r
        for r in read_records(DATA / "alpaca_eval/responses.parquet", options).records
        if isinstance(r, PerformanceRecord)
    ]
    training = [record for record in records if record.split != "test"]
    test = without_leaks(training, [record for record in records if record.split == "test"])[0]
    config = VerifierConfig(epochs=1, evaluations=1, max_tokens=192, frozen_share=0.5, resume=True)
    verifier = load_verifier(bundle("cascade-alpaca-0-verifier", lambda out: train_verifier(training, out, config)))
    answered = [r for r in test if isinstance(r, PerformanceRecord) and r.response is not None]
    confidence = verifier.confidence([r.query for r in answered], [r.response or "" for r in answered]).astype(float)
    good = np.asarray([r.score >= 0.5 for r in answered])
    drawn = [
        (auroc(confidence[rows], good[rows]), expected_calibration_error(confidence[rows], good[rows].astype(float)))
        for rows in resamples(groups_of([str(r.query) for r in answered]), BOOTSTRAP, 0)
    ]
    models = np.asarray([r.model for r in answered])
    mt_bench = replay(routellm("mt_bench"), verifier, None, PRICES[STRONG], PRICES[WEAK], None)
    return {
        "mt_bench": mt_bench,
        "answers": len(answered),
        "good": float(good.mean()),
        "models": len(set(models)),
        "auroc": [auroc(confidence, good), *percentile_interval([a for a, _ in drawn])],
        "ece": [
            expected_calibration_error(confidence, good.astype(float)),
            *percentile_interval([e for _, e in drawn]),
        ],
        "within_models": float(
            np.nanmean([auroc(confidence[models == name], good[models == name]) for name in sorted(set(models))])
        ),
    }


def _three(values: list[float], signed: bool = False) -> str:
    form = "{:+.3f}" if signed else "{:.3f}"
    return form.format(values[0]) + f" ({form.format(values[1])} to {form.format(values[2])})"


def lines(name: str, found: dict[str, Any]) -> list[str]:
    """The tables of one set."""
    setting = SETTINGS[name]
    text = [f"### {setting.title}: {setting.strong} behind each of the weak models", ""]
    for weak, pair in found["pairs"].items():
        best = pair["best_router"]
        text += [
            f"{weak} ({pair['weak']:.3f} of its answers right; {setting.strong}: {pair['strong']:.3f}), "
            f"{pair['questions']:,} questions. Verifier: AUROC {_three(pair['auroc'])} of telling right answers, ECE "
            f"{pair['ece']:.3f}; the router alone, from the question: {pair['router_auroc']:.3f}.",
            "",
            "| policy | APGR | less the better router's, paired |",
            "|---|---|---|",
        ]
        for policy, values in pair["apgr"].items():
            versus = "" if policy == best else _three(pair["less_best_router"][policy], signed=True)
            text.append(f"| {policy} | {_three(values)} | {versus} |")
        shares = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7)
        text += [
            "",
            "Accuracy at a strong-call share of:",
            "",
            "| policy | " + " | ".join(f"{share:.0%}" for share in shares) + " |",
            "|---" * (len(shares) + 1) + "|",
        ]
        for policy, points in pair["curve"].items():
            share, quality = zip(*points, strict=True)
            values = np.interp(shares, share, quality)
            text.append(f"| {policy} | " + " | ".join(f"{value:.3f}" for value in values) + " |")
        text.append("")
    return [*text, *limits(name), *(expected("", found["replays"]) if found["replays"] else [])]


def expected(what: str, replays: list[dict[str, Any]]) -> list[str]:
    """Expected cost beside that of a real cascade."""
    same = [abs(one["same"]["cost"] / one["expected"] - 1) for one in replays]
    other = [one["other"]["cost"] / one["expected"] - 1 for one in replays]
    sizes = [one["other"]["queries"] for one in replays]
    rates = [one["same"]["escalation_rate"] for one in replays]
    return [
        f"Expected cost against a replay by a real cascade ({min(rates):.0%} to {max(rates):.0%} escalated): at most "
        f"{max(same):.2%} off on the questions that the plan was made on; on others ({min(sizes):.0f} to "
        f"{max(sizes):.0f}{what} a plan) {np.mean(other):+.1%} on average, {max(map(abs, other)):.1%} at most.",
        "",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=[*SETTINGS, "alpaca"], choices=[*SETTINGS, "alpaca"])
    arguments = parser.parse_args()
    text = [
        "APGR over the share of strong calls, RouteLLM's definition. cascade: weak answers first, the verifier's "
        "confidence decides. joint: escalated by the win rate that router and verifier expect of strong over the "
        "answer at hand. Intervals are 95 % bootstraps over questions.",
        "",
    ]
    for name in arguments.sets:
        if name != "alpaca":
            text += lines(name, cached(f"cascade/{name}", lambda n=name: measure(n)))
            continue
        found = cached("cascade/alpaca", alpaca)
        text += [
            "### AlpacaEval: is an answer at least as good as GPT-4's?",
            "",
            f"{found['answers']:,} answers of {found['models']} models to test prompts, {found['good']:.1%} of them at "
            f"least as good by the judge. AUROC {_three(found['auroc'])}, within one model "
            f"{found['within_models']:.3f} on average; ECE {_three(found['ece'])}.",
            "",
            "### MT-Bench: expected cost of a cascade with this verifier",
            "",
            *expected(" first turns", [found["mt_bench"]]),
            "",
        ]
    write_section("Cascades", "python benchmarks/cascade.py", text)


if __name__ == "__main__":
    main()
