"""What `collect` loses, pays twice, overspends, and estimates wrongly.

Run: ROUTELEARN_DATA=FOLDER python benchmarks/collect.py

Three parts. (1) 5,001 calls of three local models with faults, and 30 kills at random moments. (2) Budgets: the same
models, each budget against the bill. (3) The price that a dry run states against the bill of the recorded answers of
real models, for three kinds of prompts: the lengths are those of a tokenizer that the estimate does not know. Five
minutes on two cores.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas
from common import DATA, ROOT, cached, say, write_section
from tokenizers import Tokenizer

from routelearn.labelling.candidates import Candidate
from routelearn.labelling.estimate import estimate_cost, pilot_rows
from routelearn.labelling.judge_prompts import pair_prompt, rubric_text
from routelearn.labelling.question import Reply
from routelearn.routers.query import estimate_tokens

sys.path.insert(0, str(ROOT / "tests"))

from helpers.collecting import CONCURRENCY, PRICES, collect_with_kills, price, write_models, write_prompts
from helpers.flaky_models import FlakyModels

FAULTS = {"full": 0.2, "broken": 0.05, "cut": 0.02, "hung": 0.01}
PILOTS, SEEDS = (50, 100, 200), 200
#: Kinds of prompts: a file of recorded answers.
KINDS = {
    "chat (AlpacaEval, 12 models)": "alpaca_eval/responses.parquet",
    "mathematics (GSM8K, 4 models)": "zeroeval/gsm8k_responses.parquet",
    "exam questions (MMLU-Pro, 3 models)": "mmlu_pro/responses.parquet",
}


def answer(prompt: str) -> str:
    """Answers of different lengths."""
    return f"Answer to {prompt}" * (len(prompt) % 5 + 1)


def kills() -> dict[str, float]:
    """A job of 5,001 calls that is killed 30 times."""
    with tempfile.TemporaryDirectory() as folder, FlakyModels(answer=answer, **FAULTS) as server:
        found = collect_with_kills(Path(folder), server, prompts=1667, kills=30)
        say(found.messages)
        faults = dict(server.faults)
    return {
        "kills": found.kills,
        "rows": found.rows,
        "answered": found.answered,
        "usd": found.usd,
        "bill": found.bill,
        "seconds": found.seconds,
        "faults": sum(faults.values()),
    }


def budgets() -> list[dict[str, float]]:
    """Jobs with a budget of a part of what all would cost."""
    rows = []
    for share in (0.1, 0.25, 0.5, 0.9):
        with tempfile.TemporaryDirectory() as place, FlakyModels(answer=answer, **FAULTS) as server:
            folder = Path(place)
            prompts = write_prompts(folder / "prompts.jsonl", 300)
            models = write_models(folder / "models.toml", server.url, timeout_s=5.0)
            calls = [(name, prompt) for name in PRICES for prompt in prompts]
            prices = {one: price(one[0], server.tokens(*one, answer(one[1]))) for one in calls}
            budget = share * math.fsum(prices.values())
            command = [sys.executable, "-m", "routelearn", "collect", str(folder / "prompts.jsonl")]
            command += ["--models", str(models), "--out", str(folder / "a.jsonl"), "--budget-usd", str(budget)]
            subprocess.run(command, check=True, capture_output=True)
            bill = math.fsum(prices[one] * count for one, count in server.answered.items())
            rows.append({"budget": budget, "bill": bill, "dearest": max(prices.values())})
    return rows


def estimates(file: str) -> list[dict[str, float]]:
    """Errors of the estimated price, relative to the bill, over the choices of the pilot and the models."""
    table = pandas.read_parquet(DATA / file)
    tokenizer = Tokenizer.from_file(str(ROOT / "models" / "minilm-static" / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def count(texts: list[str]) -> np.ndarray:
        return np.array([len(one.ids) for one in tokenizer.encode_batch(texts, add_special_tokens=False)])

    models = []
    for _, group in table.groupby("model"):
        part = group.drop_duplicates("prompt").dropna(subset=["response"])
        if len(part) >= 300:
            models.append((list(part["prompt"]), count(list(part["prompt"])), count(list(part["response"]))))
    return [_errors(models, pilot) for pilot in PILOTS]


def _errors(models: list[tuple[list[str], np.ndarray, np.ndarray]], pilot: int) -> dict[str, float]:
    """Errors after a pilot of so many prompts; `assumed` are those without one."""
    errors, inside, assumed = [], [], []
    one = Candidate(name="m", input_price=1.0, output_price=4.0)
    for queries, read, written in models:
        prices = [one.cost(float(a), float(b)) or 0.0 for a, b in zip(read, written, strict=True)]
        bill = math.fsum(prices)
        assumed.append((estimate_cost(one, queries, {}).usd or 0.0) / bill - 1)
        for seed in range(SEEDS):
            answered = {
                row: Reply(
                    candidate="m", input_tokens=int(read[row]), output_tokens=int(written[row]), cost_usd=prices[row]
                )
                for row in pilot_rows(queries, pilot, seed)
            }
            found = estimate_cost(one, queries, answered)
            assert found.usd is not None and found.interval is not None
            errors.append((found.usd + found.paid_usd) / bill - 1)
            inside.append(found.interval[0] <= bill - found.paid_usd <= found.interval[1])
    size = np.abs(errors)
    return {
        "pilot": pilot,
        "mean": float(size.mean()),
        "within": float((size <= 0.15).mean()),
        "most": float(np.quantile(size, 0.95)),
        "inside": float(np.mean(inside)),
        "assumed_low": float(min(assumed)),
        "assumed_high": float(max(assumed)),
    }


#: USD per million tokens, in and out: the list prices of gpt-4o and gpt-4o-mini of 2025.
LARGE, SMALL = (2.50, 10.00), (0.15, 0.60)
#: Tokens of a verdict with its reasons, twice for each pair.
VERDICT_TOKENS = 150


def step_costs() -> list[dict[str, float]]:
    """USD of each step for three numbers of chat prompts, at the recorded lengths of a strong and a weak model."""
    table = pandas.read_parquet(DATA / "alpaca_eval" / "responses.parquet")
    strong, weak = (
        table[table["model"] == name].drop_duplicates("prompt").set_index("prompt")["response"].dropna()
        for name in ("gpt4_1106_preview", "Mixtral-8x7B-Instruct-v0.1")
    )
    prompts = sorted(set(strong.index) & set(weak.index))
    read = np.mean([estimate_tokens(prompt) for prompt in prompts])
    written = [np.mean([estimate_tokens(answers[prompt]) for prompt in prompts]) for answers in (strong, weak)]
    rubric = rubric_text("pairs")
    judged = np.mean(
        [estimate_tokens(pair_prompt(rubric, prompt, strong[prompt], weak[prompt], None)) for prompt in prompts]
    )
    rows = []
    for count in (300, 1000, 5000):
        asked = [count * (read * i + w * o) / 1e6 for (i, o), w in zip((LARGE, SMALL), written, strict=True)]
        verdicts = 2 * count * (judged * LARGE[0] + VERDICT_TOKENS * LARGE[1]) / 1e6
        cheap = 2 * count * (judged * SMALL[0] + VERDICT_TOKENS * SMALL[1]) / 1e6
        rows.append(
            {"prompts": count, "strong": asked[0], "weak": asked[1], "judge": verdicts, "cheap_judge": cheap}
            | {"read": float(read), "strong_tokens": float(written[0]), "weak_tokens": float(written[1])}
            | {"judged": float(judged)}
        )
    return rows


def main() -> None:
    """Measure, and write the section."""
    killed, spent = cached("collect_kills", kills), cached("collect_budgets", budgets)
    kinds = {
        kind: cached(f"collect_{file.split('/', maxsplit=1)[0]}", lambda file=file: estimates(file))
        for kind, file in KINDS.items()
    }
    twice = killed["answered"] - killed["rows"]
    lines = [
        f"**Kills.** {killed['rows']:,} questions to three local models. 20 % of the calls get 429, 5 % get 500, 2 % "
        f"are cut and 1 % hang; {killed['kills']} kills at random moments. Each question has one answer in the end. "
        f"The servers answered {killed['answered']:,} calls: {twice} answers were in flight at a kill and were paid "
        f"again (at most {CONCURRENCY * len(PRICES)} at each kill). The table says {killed['usd']:.6f} USD, the "
        f"servers' bill for one answer each is {killed['bill']:.6f} USD. {killed['seconds']:.0f} s.",
        "",
        "**Budgets.** The bill may exceed the budget by the calls in flight.",
        "",
        "| budget (USD) | bill (USD) | bill less budget (USD) | dearest call (USD) |",
        "|---|---|---|---|",
        *(
            f"| {row['budget']:.5f} | {row['bill']:.5f} | {row['bill'] - row['budget']:+.5f} | {row['dearest']:.5f} |"
            for row in spent
        ),
        "",
        "**Dry run.** Error of the price that a dry run states after a pilot, relative to the bill, over "
        f"{SEEDS} pilots of each model; and without a pilot, where 300 tokens an answer are assumed.",
        "",
        "| prompts | pilot | mean error | within 15 % | 95 % below | bill in the interval | no pilot |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {kind} | {row['pilot']} | {row['mean']:.1%} | {row['within']:.1%} | {row['most']:.1%} | "
            f"{row['inside']:.1%} | {row['assumed_low']:+.0%} to {row['assumed_high']:+.0%} |"
            for kind, rows in kinds.items()
            for row in rows
        ),
    ]
    steps = cached("collect_steps", step_costs)
    first = steps[0]
    lines += [
        "",
        f"**Each step.** {first['read']:.0f} tokens a prompt, {first['strong_tokens']:.0f} and "
        f"{first['weak_tokens']:.0f} an answer of strong and weak (AlpacaEval, GPT-4 Turbo and Mixtral; a token is "
        f"four characters). The judge reads {first['judged']:.0f} and writes {VERDICT_TOKENS}, twice a pair. Strong "
        f"and judge cost {LARGE[0]:.2f} and {LARGE[1]:.2f} USD per million tokens in and out, weak {SMALL[0]:.2f} and "
        f"{SMALL[1]:.2f}.",
        "",
        "| prompts | ask strong | ask weak | judge | judge at the weak model's price | all |",
        "|---|---|---|---|---|---|",
        *(
            f"| {row['prompts']:,} | {row['strong']:.2f} | {row['weak']:.2f} | {row['judge']:.2f} | "
            f"{row['cheap_judge']:.2f} | {row['strong'] + row['weak'] + row['judge']:.2f} |"
            for row in steps
        ),
    ]
    write_section("What collecting answers costs", "python benchmarks/collect.py", lines)


if __name__ == "__main__":
    print(json.dumps({"data": str(DATA)}), file=sys.stderr)
    main()
