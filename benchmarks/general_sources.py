"""The sources of the general router: file, licence, and who judges the answers.

`shipped_sources` lists what the weights in models/ are trained on: files whose source states a permissive licence. The
other files are for benchmarks only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas

from routelearn.data.records import PerformanceRecord, PreferenceRecord, Record
from routelearn.routers.abilities import canonical_name

#: Who judges the answers: a program, a judge who grades each answer, or one who prefers one of two.
Judge = Literal["program", "grade", "preference"]
#: Licences under which weights may be trained and shipped.
PERMISSIVE = frozenset({"Apache-2.0", "MIT"})
#: Columns of a wide file that are no scores.
_NOT_SCORES = frozenset({"query_id", "prompt", "task", "split_hint"})


@dataclass(frozen=True)
class Source:
    """One file of records.

    Attributes:
        name: name of the source.
        path: the file below the data folder.
        judge: who judges the answers.
        licence: the licence that the source states for the data; None where it states none.
        shared: other sources that hold some of the same prompts, which are left out together.
    """

    name: str
    path: str
    judge: Judge
    licence: str | None
    shared: tuple[str, ...] = ()

    @property
    def permissive(self) -> bool:
        """Whether weights that are trained on the source may be shipped."""
        return self.licence in PERMISSIVE


def _general(name: str, judge: Judge, licence: str | None, *shared: str) -> Source:
    return Source(name, f"general/{name}.parquet", judge, licence, shared)


SOURCES = (
    Source("mmlu", "routellm_eval/mmlu.parquet", "program", "Apache-2.0"),
    Source("mmlu_pro", "mmlu_pro/performance_wide.parquet", "program", "Apache-2.0"),
    Source("zeroeval_gsm8k", "zeroeval/gsm8k_wide.parquet", "program", "Apache-2.0"),
    Source("zeroeval_math", "zeroeval/math_level5_wide.parquet", "program", "Apache-2.0", ("fasteval_bbh_math",)),
    _general("fasteval_bbh_math", "program", "Apache-2.0", "zeroeval_math"),
    _general("fasteval_humaneval_plus", "program", "Apache-2.0"),
    _general("fasteval_openai_evals", "program", "Apache-2.0"),
    _general("ifeval_multilingual", "program", "Apache-2.0"),
    _general("japanese_chat_shaberi", "grade", "Apache-2.0"),
    _general("justeval_safety", "grade", "MIT", "justeval_gpt35_absolute"),
    _general("justeval_gpt35_absolute", "grade", "MIT", "justeval_safety"),
    _general("llmrouter_10tasks_midtier", "program", "MIT"),
    _general("zeroeval_zebra", "program", "Apache-2.0"),
    _general("llmdrift_leetcode_easy", "program", "Apache-2.0"),
    _general("qlora_oasst_gpt4_pairs", "preference", "MIT"),
    _general("qlora_vicuna_gpt4_pairs", "preference", "MIT"),
    _general("h2o_business_gpt4_pairs", "preference", "Apache-2.0"),
    _general("tulu_human_pairs", "preference", "Apache-2.0"),
    _general("cascades_knowledge", "program", None),
    _general("mot_date", "program", None),
    _general("bfcl_function_calling", "program", None),
)


def shipped_sources() -> list[Source]:
    """The sources that the weights in models/ are trained on."""
    return [source for source in SOURCES if source.permissive]


def read_source(data: Path, source: Source) -> list[Record]:
    """The records of a source, with the model names of the table of abilities.

    Args:
        data: the data folder.
        source: the source.
    """
    table = pandas.read_parquet(data / source.path)
    table = table[table["prompt"].map(lambda prompt: isinstance(prompt, str))]
    if source.judge == "preference":
        return list(_preferences(table, source.name))
    if "model" in table:
        rows: Iterable[tuple[str, str, float]] = zip(table["prompt"], table["model"], table["score"], strict=True)
    else:
        models = [name for name in table if name not in _NOT_SCORES and pandas.api.types.is_numeric_dtype(table[name])]
        rows = table.melt(["prompt"], models).itertuples(index=False, name=None)
    return [
        PerformanceRecord(prompt, canonical_name(model), min(1.0, max(0.0, float(score))), source=source.name)
        for prompt, model, score in rows
        if not pandas.isna(score)
    ]


def _preferences(table: pandas.DataFrame, source: str) -> Iterator[Record]:
    columns = ["prompt", "model_a", "model_b", "preference"]
    for prompt, model_a, model_b, preference in table[columns].dropna().itertuples(index=False, name=None):
        names = canonical_name(model_a), canonical_name(model_b)
        if names[0] != names[1]:
            yield PreferenceRecord(prompt, *names, float(preference), source=source)


def read_sources(data: Path, sources: Sequence[Source]) -> list[Record]:
    """The records of several sources, one source after the other."""
    return [record for source in sources for record in read_source(data, source)]
