"""Simulates a sample data set, so that everything can be tried without any data.

The data is synthetic, and its README says so. Queries come from templates of several topics and difficulties. Four
imaginary models answer them with the skills below, by item response theory (two-parameter logistic model, Birnbaum
1968): ``P(good) = sigmoid(discrimination * (skill[model, topic] - difficulty))``. The sample serves the demo and the
tests; no claim about routelearn rests on it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from ..routers.checks import check_whole
from ..routers.query import Query, prompt_key
from .records import PerformanceRecord, PreferenceRecord, Record, record_key
from .sample_text import ANSWERS, FOLLOW_UPS, TOPICS, WEAK_ANSWERS
from .splits import find_copies
from .writers import atomic_path, write_records

R = TypeVar("R", PerformanceRecord, PreferenceRecord)

DISCRIMINATION = 1.7
#: Share of the judgements that are reversed at random.
LABEL_NOISE = 0.04
#: Two answers whose latent quality differs by less than this are a tie.
TIE_MARGIN = 0.35

_NUMBER = re.compile(r"\d+")

#: The files that `write_sample` writes.
FILES = ("performance.jsonl", "preferences.jsonl", "queries.txt", "pool.json", "README.txt")

NOTICE = """This data is SYNTHETIC. A simulator made it (routelearn data sample, seed {seed}): the prompts come from
templates, the models do not exist, and the answers and scores are drawn from item response theory with the
skills written in routelearn/data/sample.py. It serves to try the tools. A figure measured on it says nothing
about any real model or router.
"""


@dataclass(frozen=True)
class SampleModel:
    """An imaginary model of the sample.

    Attributes:
        name: name of the model.
        input_price: price in USD per million input tokens.
        output_price: price in USD per million output tokens.
        answer_tokens: typical length of an answer, in tokens.
        skills: skill by topic, on the scale of the difficulties.

    Example:
        >>> from routelearn.data import POOL
        >>> [model.name for model in POOL]
        ['sim-nano', 'sim-small', 'sim-large', 'sim-max']
    """

    name: str
    input_price: float
    output_price: float
    answer_tokens: int
    skills: dict[str, float]


#: The imaginary models of the sample, from the cheapest to the dearest.
POOL: tuple[SampleModel, ...] = tuple(
    SampleModel(name, input_price, output_price, tokens, dict(zip(TOPICS, skills, strict=True)))
    for name, input_price, output_price, tokens, skills in (
        ("sim-nano", 0.05, 0.2, 90, (0.6, -1.6, -1.4, 0.3, 0.0, -1.0, 0.9, -0.5)),
        ("sim-small", 0.2, 0.8, 140, (1.3, -0.4, -0.6, 1.0, 0.9, -0.1, 1.5, 0.4)),
        ("sim-large", 2.0, 8.0, 190, (2.0, 0.9, 1.3, 1.7, 1.8, 1.0, 2.0, 1.3)),
        ("sim-max", 8.0, 30.0, 260, (2.4, 2.2, 2.0, 2.1, 2.3, 2.0, 2.3, 2.2)),
    )
)


@dataclass(frozen=True)
class Sample:
    """A simulated data set.

    Attributes:
        queries: the n queries.
        tasks: topic of each query.
        splits: split of each query: "train", "val" or "test".
        expected_quality: float64 (n, 4), the true probability of a good answer of each model, in the order of `POOL`.
        performances: a performance record of every model on every query, with cost and response.
        preferences: preference records of two pairs of models for every query.

    Example:
        >>> from routelearn.data import generate_sample
        >>> sample = generate_sample(100, seed=0)
        >>> len(sample.queries), len(sample.performances), len(sample.preferences)
        (100, 400, 200)
    """

    queries: list[Query]
    tasks: list[str]
    splits: list[str]
    expected_quality: npt.NDArray[np.float64]
    performances: list[PerformanceRecord]
    preferences: list[PreferenceRecord]


def generate_sample(n_queries: int = 4000, seed: int = 0) -> Sample:
    """Simulate queries, answers and judgements. The same number and seed give the same sample.

    Raises:
        InputError: n_queries is no whole number of 1 or more.
    """
    check_whole("n_queries", n_queries, 1)
    random = np.random.default_rng(seed)
    topics = list(TOPICS)
    sample = Sample([], [], [], np.zeros((n_queries, len(POOL))), [], [])
    seen: dict[str, tuple[str, int]] = {}
    while len(seen) < n_queries:
        topic = topics[int(random.integers(len(topics)))]
        level = int(random.integers(3))
        prompt = _prompt(topic, level, random)
        if prompt in seen:
            prompt = f"{prompt} (case {int(random.integers(10_000))})"
        seen.setdefault(prompt, (topic, level))
    splits = _splits(list(seen), random)
    for (prompt, (topic, level)), split in zip(seen.items(), splits, strict=True):
        _simulate(sample, topic, level, prompt, split, random)
    return _without_leaks(sample)


def _splits(prompts: list[str], random: np.random.Generator) -> list[str]:
    """A split of each prompt; prompts that differ in their numbers only stand in one split."""
    group: dict[str, str] = {}
    for prompt in prompts:
        drawn = str(random.choice(["train", "val", "test"], p=[0.65, 0.1, 0.25]))
        group.setdefault(_NUMBER.sub("n", prompt), drawn)
    return [group[_NUMBER.sub("n", prompt)] for prompt in prompts]


def _without_leaks(sample: Sample) -> Sample:
    """The sample with near copies of training queries moved from test to training, so that it passes the leak check."""
    keys = [prompt_key(query) for query in sample.queries]
    tested = {key for key, split in zip(keys, sample.splits, strict=True) if split == "test"}
    moved: set[str] = set()
    while copies := {copy.prompt for copy in find_copies(set(keys) - tested, tested)}:
        tested -= copies
        moved |= copies

    def splits(records: list[R]) -> list[R]:
        return [replace(record, split="train") if record_key(record) in moved else record for record in records]

    return replace(
        sample,
        splits=["train" if key in moved else split for key, split in zip(keys, sample.splits, strict=True)],
        performances=splits(sample.performances),
        preferences=splits(sample.preferences),
    )


def _prompt(topic: str, level: int, random: np.random.Generator) -> str:
    templates, fillers = TOPICS[topic]
    template = str(random.choice(templates[level]))
    while "{" in template:
        start, end = template.index("{"), template.index("}")
        slot = template[start + 1 : end]
        value = str(int(random.integers(2, 999))) if slot == "n" else str(random.choice(fillers[slot]))
        template = template[:start] + value + template[end + 1 :]
    return template


def _simulate(sample: Sample, topic: str, level: int, prompt: str, split: str, random: np.random.Generator) -> None:
    number = len(sample.queries)
    difficulty = (-0.9, 0.5, 1.9)[level] + 0.35 * random.standard_normal()
    query: Query = prompt
    if random.random() < 0.12:
        query = (
            {"role": "user", "content": prompt},
            {"role": "assistant", "content": str(random.choice(ANSWERS[topic]))},
            {"role": "user", "content": str(random.choice(FOLLOW_UPS))},
        )
    sample.queries.append(query)
    sample.tasks.append(topic)
    sample.splits.append(split)
    margins = DISCRIMINATION * np.asarray([model.skills[topic] - difficulty for model in POOL])
    sample.expected_quality[number] = 1 / (1 + np.exp(-margins))
    latent = margins + random.logistic(size=len(POOL))
    good = (latent > 0) ^ (random.random(len(POOL)) < LABEL_NOISE)
    answers = []
    for column, model in enumerate(POOL):
        answer = str(random.choice(ANSWERS[topic] if good[column] else WEAK_ANSWERS))
        answers.append(answer)
        tokens_in = max(1, len(prompt) // 4)
        tokens_out = max(5, int(model.answer_tokens * random.lognormal(0, 0.3)))
        cost = (tokens_in * model.input_price + tokens_out * model.output_price) / 1e6
        sample.performances.append(
            PerformanceRecord(
                query, model.name, float(good[column]), cost_usd=cost, response=answer, task=topic, split=split
            )
        )
    for _ in range(2):
        a, b = (int(column) for column in random.choice(len(POOL), 2, replace=False))
        difference = latent[a] - latent[b]
        preference = 0.5 if abs(difference) < TIE_MARGIN else float(difference > 0)
        if random.random() < LABEL_NOISE:
            preference = 1 - preference
        sample.preferences.append(
            PreferenceRecord(
                query,
                POOL[a].name,
                POOL[b].name,
                preference,
                task=topic,
                split=split,
                response_a=answers[a],
                response_b=answers[b],
            )
        )


def write_sample(folder: str | Path, n_queries: int = 4000, seed: int = 0) -> list[Path]:
    """Write a sample to a folder: performance.jsonl, preferences.jsonl, queries.txt, pool.json and README.txt.

    Returns:
        The paths of the files.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    sample = generate_sample(n_queries, seed)
    paths = []
    tables: list[tuple[str, list[Record]]] = [
        ("performance.jsonl", list(sample.performances)),
        ("preferences.jsonl", list(sample.preferences)),
    ]
    for name, records in tables:
        paths.append(write_records(records, folder / name))
    prompts = [
        query
        for query, split in zip(sample.queries, sample.splits, strict=True)
        if split == "test" and isinstance(query, str)
    ]
    pool = [
        {"name": model.name, "input_price": model.input_price, "output_price": model.output_price} for model in POOL
    ]
    texts = {
        "queries.txt": "".join(prompt + "\n" for prompt in prompts),
        "pool.json": json.dumps(pool, indent=1) + "\n",
        "README.txt": NOTICE.format(seed=seed),
    }
    for name, text in texts.items():
        with atomic_path(folder / name) as staging:
            staging.write_text(text, encoding="utf-8")
        paths.append(folder / name)
    return paths
