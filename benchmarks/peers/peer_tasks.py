"""What every contestant gets: records, splits and vectors, as plain files that a peer's environment can read."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for benchmarks/common.py
from common import DATA, STRONG, WEAK, routellm, without_leaks

from routelearn.data.parser import ReadOptions
from routelearn.data.readers import read_records
from routelearn.data.records import PreferenceRecord, Record
from routelearn.data.splits import split_by_prompt
from routelearn.evaluation.pair import Pairs, paired
from routelearn.routers.query import Query, turns
from routelearn.training.encoders.static import StaticEncoder
from routelearn.training.encoders.static_network import unit_sums

Vectors = npt.NDArray[np.float32]

SETTINGS = {
    "A": "MMLU: 10 % of the questions to train, the rest to test",
    "B": "Arena battles with a known outcome to train, MMLU questions to test",
}


@dataclass(frozen=True)
class Task:
    """One setting and seed.

    Attributes:
        setting: a key of `SETTINGS`.
        seed: of the split and of the training.
        training: the records that our own routers train on.
        battles: (prompt, model a, model b, winner), which RouteLLM trains on; the winner is
            "model_a", "model_b" or "tie".
        performances: (prompt, score of strong, score of weak), which LLMRouter trains on; none in setting B.
        pairs: the test questions, with both scores.
        near_copies_removed: test prompts dropped as near copies of training prompts.
    """

    setting: str
    seed: int
    training: list[Record]
    battles: list[tuple[str, str, str, str]]
    performances: list[tuple[str, float, float]]
    pairs: Pairs
    near_copies_removed: int

    @property
    def test(self) -> list[str]:
        """The test prompts, in the order of `pairs`."""
        return [first_turn(query) for query in self.pairs.queries]

    def write(self, folder: Path, encoder: StaticEncoder, limits: dict[str, list[int]]) -> Path:
        """Store what a peer needs in a folder: task.json, and vectors.npz with the rows of `performances` and `test`.

        Args:
            folder: made if it is not there.
            encoder: of the vectors.
            limits: rows of the test that an algorithm scores, where it is too slow for all.
        """
        folder.mkdir(parents=True, exist_ok=True)
        test = self.test
        content = {
            "strong": STRONG,
            "weak": WEAK,
            "seed": self.seed,
            "battles": self.battles,
            "performances": self.performances,
            "test": test,
            "limits": limits,
        }
        (folder / "task.json").write_text(json.dumps(content), encoding="utf-8")
        training = embed([prompt for prompt, _, _ in self.performances], encoder)
        np.savez(folder / "vectors.npz", training=training, test=embed(test, encoder))
        return folder


def embed(texts: Sequence[str], encoder: StaticEncoder) -> Vectors:
    """The vectors that all contestants see: normalised sums of static token vectors, float32 (n, d)."""
    if not texts:
        return np.empty((0, encoder.dimensions), np.float32)
    return unit_sums(list(texts), encoder)


def first_turn(query: Query) -> str:
    """A query as RouteLLM reads it: the first turn of a chat."""
    return turns(query)[0]


def make_task(setting: str, seed: int) -> Task:
    """Read and split the records of a setting, as benchmarks/mmlu.py does."""
    if setting == "A":
        training, test = split_by_prompt(routellm("mmlu"), (0.1, 0.9), seed)
        pairs = paired(training, STRONG, WEAK)
        rows = list(zip([first_turn(query) for query in pairs.queries], pairs.strong, pairs.weak, strict=True))
        performances = [(prompt, float(strong), float(weak)) for prompt, strong, weak in rows]
        battles = [(prompt, STRONG, WEAK, _winner(strong, weak)) for prompt, strong, weak in rows]
    else:
        battle_records = known_battles()
        training, test, performances = [*battle_records], routellm("mmlu"), []
        battles = [(first_turn(r.query), r.model_a, r.model_b, _winner(r.preference, 0.5)) for r in battle_records]
    test, dropped = without_leaks(training, test)
    return Task(setting, seed, training, battles, performances, paired(test, STRONG, WEAK), dropped)


def known_battles() -> list[PreferenceRecord]:
    """Human battles of the training and validation rows whose outcome is known: soft labels are left out."""
    records: list[Any] = read_records(DATA / "arena_human" / "arena_pairs.parquet", ReadOptions()).records
    return [record for record in records if record.split != "test" and record.preference in {0.0, 0.5, 1.0}]


def _winner(a: float, b: float) -> str:
    """The outcome of a battle, from the two sides' scores."""
    return "tie" if a == b else "model_a" if a > b else "model_b"
