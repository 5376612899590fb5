"""Cascades on real answers: what a verifier is worth, and whether cascading is better than routing.

Run: python benchmarks/cascade.py [--sets gsm8k mmlu_pro math alpaca]
GSM8K is split into five folds: a verifier and a router that were not trained on a question judge it. MMLU-Pro, MATH
level 5 and AlpacaEval have splits in their files. Routers see the same training questions. Prices are those of
benchmarks/prices.json and of PRICES in cascade_sets.py. Training the verifiers takes some two hours on one core; the
bundles stay in benchmarks/out, so that a stopped run can go on. Reads $ROUTELEARN_DATA (default ../shared/data). Writes
a section of docs/results.md.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from cascade_replay import expected, replay
from cascade_sets import PRICES, SETTINGS, parts, prices, router_of, verifier_of
from common import DATA, STRONG, WEAK, bundle, cached, routellm, say, without_leaks, write_section

from routelearn.cascade.confidence import joint_confidence
from routelearn.cascade.verifier import load_verifier
from routelearn.data.parser import ReadOptions
from routelearn.data.readers import read_records
from routelearn.data.records import PerformanceRecord
from routelearn.evaluation.cascade_plan.answered_queries import AnsweredQueries, answered_queries
from routelearn.evaluation.pair import groups_of
from routelearn.training.fit.metrics import (
    Array,
    auroc,
    expected_calibration_error,
    percentile_interval,
    resamples,
    routing_curve,
)
from routelearn.training.verifier.config import VerifierConfig
from routelearn.training.verifier.train import train_verifier

BOOTSTRAP = 1000


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
