"""Sessions through real LiteLLM proxies while things break: tool loops, replicas, a dead store, a dead model.

Run: python benchmarks/session_outages.py

The conversations are made of sample prompts, with loops of tool calls; the router is a bundle of the tests. The
upstreams, the proxies and Redis are separate processes; the client is OpenAI's. Writes a section of docs/results.md.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from common import ROOT, say, write_section

sys.path.insert(0, str(ROOT / "tests"))
from helpers.billing_upstream import BillingUpstream
from helpers.litellm_proxy import NEWEST, OLDER
from helpers.redis_server import RedisServer
from helpers.session_load import Answer, Ask, ask_sessions, changes_in_loops, errors, mixed_requests, tool_sessions
from helpers.session_proxies import MOST_TOKENS, STRONG, WEAK, SessionProxy, billing_upstreams, session_proxies

COMMAND = "python benchmarks/session_outages.py"
SESSIONS, MIXED, CONCURRENCY = 250, 1000, 16
Answers = Mapping[str, Sequence[Answer]]


def run(
    proxies: list[SessionProxy], sessions: Mapping[str, Sequence[Ask]], *steps: tuple[float, Callable[[], object]]
) -> Answers:
    """Ask all sessions; each step is (share of the requests, what happens then)."""
    left, total = list(steps), sum(map(len, sessions.values()))

    def progress(done: int) -> None:
        if left and done >= left[0][0] * total:
            threading.Thread(target=left.pop(0)[1]).start()

    answers = asyncio.run(ask_sessions([one.url for one in proxies], "auto", sessions, CONCURRENCY, progress))
    for error in errors(answers)[:3]:
        say(error)
    return answers


def row(version: str, what: str, answers: Answers, *more: str) -> str:
    """A row: sessions, requests, failed ones, changes of the model within a tool loop, and what else was seen."""
    requests = sum(map(len, answers.values()))
    line = (
        f"| {version} | {what} | {len(answers)} | {requests:,} | {len(errors(answers))} | {changes_in_loops(answers)} |"
    )
    say(line)
    return f"{line} {'; '.join(more)} |"


def replicas(models: Sequence[BillingUpstream]) -> list[str]:
    """Two proxies that take turns, with one Redis: as one proxy decides; the store killed twice."""
    sessions = tool_sessions(SESSIONS, seed=1)
    with (
        RedisServer() as store,
        session_proxies(NEWEST, 2, models, ROUTELEARN_REDIS_URL=store.url, ROUTELEARN_SESSION_REQUESTS="6") as both,
    ):
        together = run(both, {f"a-{name}": one for name, one in sessions.items()})
        alone = run(both[:1], {f"b-{name}": one for name, one in sessions.items()})
        same = sum(
            one.text == other.text
            for first, second in zip(together.values(), alone.values(), strict=True)
            for one, other in zip(first, second, strict=True)
        )
        share = same / sum(map(len, alone.values()))
        killed = run(
            both,
            tool_sessions(SESSIONS, seed=2),
            (0.2, store.kill),
            (0.4, store.start),
            (0.6, store.kill),
            (0.8, store.start),
        )
    return [
        row(
            NEWEST, "two replicas take turns, one Redis", together, f"{share:.2%} of the decisions as with one replica"
        ),
        row(NEWEST, "the same, Redis killed and restarted twice", killed),
    ]


def outage(version: str, models: Sequence[BillingUpstream]) -> list[str]:
    """Strong is killed in the midst of sessions, and comes back."""
    strong = models[0]
    with session_proxies(version, 1, models) as proxies:
        quiet = run(proxies, tool_sessions(SESSIONS, seed=3))
        sessions = tool_sessions(SESSIONS, seed=4)
        firsts = {name: turns[: max(1, len(turns) // 2)] for name, turns in sessions.items()}
        begun = run(proxies, firsts)
        kept = {name for name, turns in begun.items() if turns[-1].text == STRONG}
        strong.kill()
        middle = {name: sessions[name][len(firsts[name]) : len(firsts[name]) + 1] for name in kept}
        down = run(proxies, {name: turns for name, turns in middle.items() if turns})
        strong.start()
        time.sleep(2)  # the breaker probes
        rest = {name: sessions[name][len(firsts[name]) + 1 :] for name in down}
        after = run(proxies, {name: turns for name, turns in rest.items() if turns})
        at_once = sum(turns[0].text == STRONG for turns in after.values())
        later = sum(STRONG in {one.text for one in turns} for turns in after.values())
        killed = run(proxies, tool_sessions(SESSIONS, seed=5), (0.3, strong.kill), (0.6, strong.start))
        asked = proxies[0].metrics.total("routelearn_breaker_opened_total", model=STRONG)
    lost = len(errors(begun)) + len(errors(down)) + len(errors(after))
    return [
        row(version, "nothing breaks", quiet),
        row(version, "strong killed and restarted under load", killed, f"its breaker opened {asked:.0f} times"),
        row(
            version,
            "strong killed between two requests of sessions",
            down,
            f"of {len(after)} sessions that had strong and go on, {at_once} return at once, {later} in all",
            f"{lost} failed before, during and after",
        ),
    ]


def unable(version: str, models: Sequence[BillingUpstream]) -> str:
    """Requests with images, tools and long texts, which weak cannot serve."""
    for upstream in models:
        upstream.clear()
    with session_proxies(version, 1, models) as proxies:
        answers = run(proxies, mixed_requests(MIXED, MOST_TOKENS, seed=5))
    got = models[1].lines()
    wrong = [line for line in got if line["image"] or line["tools"] or line["input"] > MOST_TOKENS]
    return row(
        version, "images, tools, long texts", answers, f"{WEAK} got {len(got)}, of which it cannot serve {len(wrong)}"
    )


def main() -> None:
    """Measure, and write the section."""
    lines = [
        "| LiteLLM | what | sessions | requests | failed | changes of model within a tool loop | |",
        "|---|---|---|---|---|---|---|",
    ]
    with billing_upstreams() as models:
        for version in (NEWEST, OLDER):
            lines += [*outage(version, models), unable(version, models)]
        lines += replicas(models)
    write_section("Sessions while things break", COMMAND, lines)


if __name__ == "__main__":
    main()
