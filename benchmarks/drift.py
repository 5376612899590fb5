"""Drift: how soon a real shift raises an alarm, and how often traffic without a shift raises one.

Run: python benchmarks/drift.py
Reads $ROUTELEARN_DATA (default ../shared/data). The router is trained on human arena battles, which takes a minute. Its
drift reference comes from prompts that were held out of the fit. The traffic is arena prompts of the test rows, which
the router never saw.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from common import bundle, routellm, write_section
from routellm_tables import ROUTERS, arena, battles

from routelearn.data.records import Record, record_key
from routelearn.monitoring.alarms import DriftAlarm
from routelearn.monitoring.drift import DriftMonitor
from routelearn.monitoring.reference import reference_of
from routelearn.routers.learned import LearnedRouter
from routelearn.routers.loading import load

SHUFFLES = 200
#: Queries of the arena before a shift: the window is full of them.
BEFORE = 500
#: Queries of a long replay, drawn with replacement.
LONG = 10_000


@dataclass(frozen=True)
class Watched:
    """What drift is told from, of n queries."""

    scores: npt.NDArray[np.float32]
    novelties: npt.NDArray[np.float32]
    vectors: npt.NDArray[np.float32]

    @classmethod
    def of(cls, router: LearnedRouter, records: Sequence[Record]) -> Watched:
        """What a router says of some queries, each prompt once."""
        queries = list({record_key(record): record.query for record in records}.values())
        assessment = router.assess(queries)
        assert assessment.novelty is not None and assessment.vectors is not None
        return cls(router.scores_of(assessment), assessment.novelty, assessment.vectors)

    def rows(self, rows: npt.NDArray[np.int64]) -> list[tuple[float, float, npt.NDArray[np.float32]]]:
        """Some of them, as they would come in."""
        return list(zip(self.scores[rows].tolist(), self.novelties[rows].tolist(), self.vectors[rows], strict=True))


Stream = list[tuple[float, float, npt.NDArray[np.float32]]]


def replay(router: LearnedRouter, stream: Stream) -> list[tuple[int, str]]:
    """Alarms of one replay: after how many queries, and of which signal."""
    alarms: list[DriftAlarm] = []
    monitor = DriftMonitor(reference_of(router), novelty_bound=router.novelty_bound, on_alarm=alarms.append)
    found: list[tuple[int, str]] = []
    for number, (score, novelty, vector) in enumerate(stream, 1):
        monitor.observe(score, novelty, vector)
        found += [(number, alarm.signal) for alarm in alarms[len(found) :]]
    return found


def shifted(router: LearnedRouter, arena_queries: Watched, other: Watched, share: float) -> list[str]:
    """One line: queries from the shift to the first alarm, over the shuffles; 1,000 queries after it."""
    delays: list[int] = []
    false = 0
    first: dict[str, int] = {}
    for seed in range(SHUFFLES):
        random = np.random.default_rng(seed)
        before = random.permutation(len(arena_queries.scores))
        new = random.permutation(len(other.scores))
        rest = before[BEFORE:]
        after: Stream = []
        for row, of_other in zip(range(1000), random.random(1000) < share, strict=True):
            source, rows = (other, new) if of_other else (arena_queries, rest)
            after += source.rows(rows[[row % len(rows)]])
        alarms = replay(router, [*arena_queries.rows(before[:BEFORE]), *after])
        false += any(place <= BEFORE for place, _ in alarms)
        late = [(place - BEFORE, signal) for place, signal in alarms if place > BEFORE]
        delays.append(late[0][0] if late else 10**9)
        if late:
            first[late[0][1]] = first.get(late[0][1], 0) + 1
    within = np.mean([delay <= 500 for delay in delays])
    worst = f"{max(delays)}" if max(delays) < 10**9 else "not within 1,000"
    by = ", ".join(f"{name} {count}" for name, count in sorted(first.items(), key=lambda item: -item[1]))
    return [f"{np.median(delays):.0f}", worst, f"{within:.1%}", f"{false} of {SHUFFLES}", by]


def stable(router: LearnedRouter, arena_queries: Watched) -> list[str]:
    """Alarms of replays without a shift: all test prompts shuffled, and long ones drawn with replacement."""
    n = len(arena_queries.scores)
    shuffled, drawn = 0, 0
    first_twenty = 0
    for seed in range(SHUFFLES):
        random = np.random.default_rng(seed)
        alarmed = bool(replay(router, arena_queries.rows(random.permutation(n))))
        shuffled += alarmed
        first_twenty += alarmed and seed < 20
        if seed < 20:
            drawn += bool(replay(router, arena_queries.rows(random.integers(0, n, LONG))))
    return [
        f"No shift: {first_twenty} of 20 and {shuffled} of {SHUFFLES} shuffled replays of all {n} arena test prompts "
        f"raised any alarm; of {LONG:,} drawn with replacement, {drawn} of 20 (these repeat the same {n} "
        "prompts, so a chance difference from the reference does not average out).",
    ]


def main() -> None:
    logging.getLogger("routelearn").setLevel(logging.ERROR)  # every alarm is a warning
    router = load(bundle("drift-arena-mf", lambda out: ROUTERS["mf"](battles("arena"), out, 0)))
    known = {record_key(record) for record in battles("arena")}
    test = [record for record in arena() if record.split == "test" and record_key(record) not in known]
    arena_queries = Watched.of(router, test)
    table = [
        "| from arena prompts to | median delay, queries | longest | flagged within 500 | alarms before "
        "| first signal |",
        "|---|---|---|---|---|---|",
    ]
    for label, name, share in (
        ("GSM8K", "gsm8k", 1.0),
        ("MMLU", "mmlu", 1.0),
        ("half GSM8K", "gsm8k", 0.5),
        ("a fifth GSM8K", "gsm8k", 0.2),
    ):
        cells = shifted(router, arena_queries, Watched.of(router, routellm(name)), share)
        table.append(f"| {label} | " + " | ".join(cells) + " |")
    lines = [
        f"mf trained on arena battles; window 500, tested every 50 queries, at most 1 % false alarms within 10,000; "
        f"{SHUFFLES} shuffles; {BEFORE} arena test prompts, then 1,000 queries.",
        "",
        *table,
        "",
        *stable(router, arena_queries),
    ]
    write_section("Drift", "python benchmarks/drift.py", lines)


if __name__ == "__main__":
    main()
