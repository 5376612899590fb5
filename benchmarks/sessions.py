"""500 conversations through real LiteLLM proxies: what routing costs with prompt caches, as the upstreams bill it.

Run: python benchmarks/sessions.py [SESSIONS]

The conversations have 1 to 40 turns and a growing context. Their turns are MMLU-Pro questions that the router was not
trained on, mostly of one subject a conversation; the answers in the history are recorded ones. The quality of an answer
is the recorded score of its model on the question. The upstreams are separate processes that cache prefixes and bill
tokens as providers do (tests/helpers/billing_upstream.py); the client is OpenAI's. Each way runs against empty caches.
Reads $ROUTELEARN_DATA (default ../shared/data). Writes a section of docs/results.md.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pandas
from common import DATA, ROOT, bundle, interval, say, write_section

from routelearn.data.readers import read_records
from routelearn.evaluation.session_replay.compare import (
    ALWAYS_STRONG,
    ALWAYS_WEAK,
    PROMPTS,
    SESSIONS,
    evaluate_sessions,
)
from routelearn.evaluation.session_replay.turns import SessionRequest
from routelearn.policies.cost import query_tokens
from routelearn.routers.decision import Model
from routelearn.routers.loading import load
from routelearn.training.fit.metrics import percentile_interval
from routelearn.training.matrix_factorization.train import MatrixFactorizationConfig, train_matrix_factorization

sys.path.insert(0, str(ROOT / "tests"))
from helpers.billing_upstream import BillingUpstream
from helpers.litellm_load import Metrics
from helpers.litellm_proxy import KEY, NEWEST, OLDER, Proxy, free_port

COMMAND = "python benchmarks/sessions.py"
STRONG, WEAK = "gemini-1.5-pro-002", "Mixtral-8x7B-Instruct-v0.1"
#: USD for a million input, cached input and output tokens: two price lists with the cached price at a tenth (Anthropic)
#: and at a half (OpenAI's gpt-4o) of the full one.
PRICES = {
    "cached at 10 %": ((3.0, 0.3, 15.0), (0.8, 0.08, 4.0)),
    "cached at 50 %": ((2.5, 1.25, 10.0), (0.15, 0.075, 0.6)),
}
CONCURRENCY = 24
RESAMPLES = 1000
LITELLM, LITELLM_AFFINE = "LiteLLM's complexity router, cache-aware", "LiteLLM's complexity router, session affinity"


@dataclass(frozen=True)
class Turn:
    """A request of a conversation, and what each model's answer to it was worth."""

    messages: list[dict[str, str]]
    quality: dict[str, float]


def router_folder() -> Path:
    """A router trained on the questions that are not for tests."""
    records = [
        one for one in read_records(DATA / "mmlu_pro" / "performance_wide.parquet").records if one.split != "test"
    ]
    config = MatrixFactorizationConfig(seed=0, general="none", strong=STRONG, weak=WEAK)
    return bundle("sessions-mf", lambda out: train_matrix_factorization(records, out, config))


def conversations(count: int, seed: int = 0, *, test: bool = True) -> dict[str, list[Turn]]:
    """Conversations of 1 to 40 turns (mean 9), each with a document of its own, four in five turns of its subject.

    Args:
        count: how many.
        seed: of the draw.
        test: of the questions for tests; False: of the others.
    """
    wide = pandas.read_parquet(DATA / "mmlu_pro" / "performance_wide.parquet")
    rows = wide[(wide["split_hint"] == "test") == test].reset_index(drop=True)
    answers = pandas.read_parquet(DATA / "mmlu_pro" / "responses.parquet", columns=["prompt", "model", "response"])
    said = dict(answers[answers["model"] == WEAK][["prompt", "response"]].itertuples(index=False))
    words = " ".join(rows["prompt"]).split()
    subjects = {name: found.index.to_numpy() for name, found in rows.groupby("task")}
    draw = np.random.default_rng(seed)
    sessions = {}
    for number in range(count):
        name, subject = f"session-{seed}-{number}", draw.choice(list(subjects))
        start = int(draw.integers(0, len(words) - 1))
        document = " ".join(words[start : start + int(np.clip(draw.lognormal(np.log(1200), 0.8), 50, 5000))])
        messages = [{"role": "system", "content": f"{name}. You help a student with this text: {document}"}]
        turns = []
        for _ in range(min(40, int(draw.geometric(1 / 9)))):
            row = rows.loc[draw.choice(subjects[subject]) if draw.random() < 0.8 else draw.integers(len(rows))]
            messages = [*messages, {"role": "user", "content": row["prompt"]}]
            turns.append(Turn(messages, {name: float(row[name]) for name in (STRONG, WEAK)}))
            messages = [*messages, {"role": "assistant", "content": str(said.get(row["prompt"], "I see."))[:1500]}]
        sessions[name] = turns
    return sessions


def balanced(folder: Path) -> float:
    """The threshold that sends half of the turns of other conversations to strong."""
    turns = [turn.messages for turns in conversations(200, seed=1, test=False).values() for turn in turns]
    return float(np.median(load(folder).score(turns)))


def replayed(folder: Path, sessions: dict[str, list[Turn]], prices: list[Model], threshold: float) -> Any:
    """What a replay without proxies says, and the threshold at which sessions reach the quality of single prompts."""
    requests = {
        name: [
            SessionRequest(
                query=turn.messages, tokens=query_tokens(turn.messages), output_tokens=250, quality=turn.quality
            )
            for turn in turns
        ]
        for name, turns in sessions.items()
    }
    report = evaluate_sessions(load(folder), requests, prices, threshold=threshold, bootstrap=300)
    wanted = next(row.quality for row in report.results if row.name == PROMPTS)
    rows = sorted((quality, at) for at, _, quality in report.curves[SESSIONS])
    at = float(np.interp(wanted, [quality for quality, _ in rows], [at for _, at in rows]))
    return report, at


def config_of(way: str) -> str:
    """A config.yaml: the hook, or LiteLLM's own complexity router."""
    models = "\n".join(
        f"  - model_name: {name}\n    litellm_params: {{model: openai/{model}, api_base: os.environ/{variable}_URL, "
        "api_key: none}"
        for name, model, variable in (("strong", STRONG, "STRONG"), ("weak", WEAK, "WEAK"), ("auto", STRONG, "STRONG"))
        if not (name == "auto" and way in {LITELLM, LITELLM_AFFINE})
    )
    if way in {LITELLM, LITELLM_AFFINE}:
        setting = "cache_aware_routing: true" if way == LITELLM else "session_affinity: true"
        models += f"""
  - model_name: auto
    litellm_params:
      model: auto_router/complexity_router
      complexity_router_config:
        tiers: {{SIMPLE: weak, MEDIUM: weak, COMPLEX: strong, REASONING: strong}}
        default_model: strong
        context_compaction: false
        {setting}"""
    callbacks = "[]" if way in {LITELLM, LITELLM_AFFINE} else "[gateway.hook]"
    return f"""model_list:
{models}
litellm_settings: {{callbacks: {callbacks}, num_retries: 0, request_timeout: 60}}
router_settings: {{disable_cooldowns: true}}
general_settings: {{master_key: os.environ/LITELLM_MASTER_KEY}}
"""


async def run(url: str, model: str, sessions: dict[str, list[Turn]]) -> tuple[dict[str, list[float]], list[str], float]:
    """Ask the turns of each session in order, many sessions at a time: qualities by session, errors, seconds."""
    waiting, quality, errors = iter(sessions.items()), {name: [] for name in sessions}, []
    limits = httpx.Limits(max_connections=CONCURRENCY, max_keepalive_connections=CONCURRENCY)
    started = time.perf_counter()
    http = httpx.AsyncClient(limits=limits, trust_env=False)
    async with openai.AsyncOpenAI(base_url=url, api_key=KEY, max_retries=0, timeout=120, http_client=http) as client:

        async def ask() -> None:
            for name, turns in waiting:
                for turn in turns:
                    try:
                        reply = await client.chat.completions.create(
                            model=model,
                            messages=turn.messages,  # type: ignore[arg-type]
                            extra_body={"litellm_session_id": name, "metadata": {"session_id": name}},
                        )
                    except openai.OpenAIError as error:
                        errors.append(f"{type(error).__name__}: {error}")
                        continue
                    quality[name].append(turn.quality[str(reply.choices[0].message.content)])

        await asyncio.gather(*(ask() for _ in range(CONCURRENCY)))
    return quality, errors, time.perf_counter() - started


@dataclass(frozen=True)
class Row:
    """One way, as the upstreams billed it, by session."""

    way: str
    usd: np.ndarray[Any, Any]
    quality: np.ndarray[Any, Any]
    requests: np.ndarray[Any, Any]
    strong: float
    cached: float
    errors: int
    seconds: float
    reported: float | None


def through_proxy(
    version: str, way: str, folder: Path, sessions: dict[str, list[Turn]], pair: list[BillingUpstream], **more: str
) -> Row:
    """Run all sessions one way, against empty caches."""
    for upstream in pair:
        upstream.clear()
    port = free_port()
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        (home / "config.yaml").write_text(config_of(way))
        (home / "gateway.py").write_text((ROOT / "examples" / "litellm" / "gateway.py").read_text())
        prices = [
            {
                "name": one.name,
                "input_price": one.prices[0],
                "cached_input_price": one.prices[1],
                "output_price": one.prices[2],
            }
            for one in pair
        ]
        (home / "models.json").write_text(json.dumps(prices))
        variables = {
            "ROUTELEARN_ROUTER": str(folder),
            "ROUTELEARN_MODELS": f"{STRONG}=strong,{WEAK}=weak",
            "ROUTELEARN_POOL": str(home / "models.json"),
            "ROUTELEARN_METRICS_PORT": str(port),
            "LITELLM_MASTER_KEY": KEY,
            **{
                f"{role}_URL": f"http://127.0.0.1:{one.port}/v1"
                for role, one in zip(("STRONG", "WEAK"), pair, strict=True)
            },
            **more,
        }
        with Proxy(version, home, variables) as running:
            asked = {ALWAYS_STRONG: "strong", ALWAYS_WEAK: "weak"}.get(way, "auto")
            quality, errors, seconds = asyncio.run(run(running.url, asked, sessions))
            time.sleep(2)  # LiteLLM logs a call after its answer
            reported = None
            if asked == "auto" and way not in {LITELLM, LITELLM_AFFINE}:  # what the client routes is no saving
                reported = Metrics(port).total("routelearn_spent_usd_total")
    for error in errors[:3]:
        say(f"{way}: {error}")
    usd = dict.fromkeys(sessions, 0.0)
    lines = [(one.name, line) for one in pair for line in one.lines()]
    for _, line in lines:
        usd[line["began"].split(".")[0]] += line["usd"]
    read = sum(line["input"] for _, line in lines)
    return Row(
        way,
        np.array(list(usd.values())),
        np.array([sum(values) for values in quality.values()]),
        np.array([len(values) for values in quality.values()]),
        sum(name == STRONG for name, _ in lines) / max(len(lines), 1),
        sum(line["cached"] for _, line in lines) / max(read, 1),
        len(errors),
        seconds,
        reported,
    )


def table(rows: Sequence[Row]) -> list[str]:
    """Lines of a table; intervals over the sessions, and the difference of each way to single prompts."""
    count = len(rows[0].usd)
    drawn = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), RESAMPLES)
    base = next(row for row in rows if row.way == PROMPTS)
    lines = [
        "| way | USD | against single prompts | quality | difference of quality | strong | cached | failed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ratio = (drawn @ row.usd) / (drawn @ base.usd) - 1
        quality = row.quality.sum() / row.requests.sum()
        gap = (drawn @ row.quality) / (drawn @ row.requests) - (drawn @ base.quality) / (drawn @ base.requests)
        lines.append(
            f"| {row.way} | {row.usd.sum():.2f} | {row.usd.sum() / base.usd.sum() - 1:+.1%} "
            f"({_percent(percentile_interval(ratio))}) | {quality:.4f} | "
            f"{quality - base.quality.sum() / base.requests.sum():+.4f} ({interval(percentile_interval(gap))}) | "
            f"{row.strong:.1%} | {row.cached:.1%} | {row.errors} |"
        )
    return lines


def _percent(limits: tuple[float, float]) -> str:
    return f"{limits[0]:+.1%} to {limits[1]:+.1%}"


def measure(version: str, sessions: dict[str, list[Turn]], label: str, ways: Sequence[str]) -> list[str]:
    """A table of one version of LiteLLM and one price list."""
    folder = router_folder()
    strong, weak = PRICES[label]
    models = [Model(name, full, out, part) for name, (full, part, out) in ((STRONG, strong), (WEAK, weak))]
    threshold = balanced(folder)
    report, at = replayed(folder, sessions, models, threshold)
    plain = {"ROUTELEARN_THRESHOLD": f"{threshold:.6f}"}
    settings = {
        SESSIONS: {"ROUTELEARN_SESSIONS": "on", **plain},
        f"{SESSIONS}, threshold {at:.4f}": {"ROUTELEARN_SESSIONS": "on", "ROUTELEARN_THRESHOLD": f"{at:.6f}"},
    }
    rows = []
    with BillingUpstream(STRONG, strong) as first, BillingUpstream(WEAK, weak) as second:
        for way in [*ways, *settings]:
            row = through_proxy(version, way, folder, sessions, [first, second], **settings.get(way, plain))
            rows.append(row)
            billed = row.usd.sum()
            said = "" if row.reported is None else f", reported {row.reported:.4f}"
            say(f"{version}, {label}: {way}: {billed:.4f} USD{said}, {row.seconds:.0f} s, {row.errors} failed")
    requests = sum(map(len, sessions.values()))
    low, high = report.saved_interval
    reported = [(row.usd.sum(), row.reported) for row in rows if row.reported is not None]
    apart = max((abs(one - other) for one, other in reported), default=0.0)
    return [
        "",
        f"LiteLLM {version}, {label} ({_prices(strong)} and {_prices(weak)}), {len(sessions)} sessions, {requests:,} "
        f"requests, threshold {threshold:.4f}:",
        "",
        *table(rows),
        "",
        f"A replay without proxies (`routelearn replay`): sessions save {report.saved_share:.1%} ({low:.1%} to "
        f"{high:.1%}) at the quality of single prompts, with the threshold {at:.4f}. The largest difference between "
        f"the upstreams' bills and `routelearn_spent_usd_total`: {apart:.6f} USD.",
    ]


def _prices(prices: tuple[float, float, float]) -> str:
    return "/".join(f"{price:g}" for price in prices)


def main() -> None:
    """Measure, and write the section."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    sessions = conversations(count)
    everything = [ALWAYS_STRONG, ALWAYS_WEAK, LITELLM, LITELLM_AFFINE, PROMPTS]
    lines = measure(NEWEST, sessions, "cached at 10 %", everything)
    lines += measure(NEWEST, sessions, "cached at 50 %", [PROMPTS])
    lines += measure(OLDER, sessions, "cached at 10 %", [PROMPTS])
    write_section("Sessions", COMMAND, lines)


if __name__ == "__main__":
    main()
