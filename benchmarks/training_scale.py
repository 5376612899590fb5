"""Time and memory of training against the numbers of records and models, step by step.

Run: python benchmarks/training_scale.py [--only mf similarity] [--sizes 100000x50 1000000x200] [--quick]
Outcomes are synthetic and seeded, on real prompts: five random models answer each prompt. Where there are too few
prompts, a number behind a prompt makes another one. Reads $ROUTELEARN_DATA (default ../shared/data). The files of
records and the rows stay in benchmarks/out, so that a stopped run goes on. Each row is a process of its own. Writes a
section of docs/results.md, but not with --quick.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial, wraps
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas
from common import DATA, OUT, cached, say, write_section

SIZES = ("10000x10", "100000x10", "100000x50", "300000x100", "1000000x10", "1000000x200")
QUICK = ("2000x5", "10000x10")
RECORDS_A_PROMPT = 5
#: Folder of each recipe, and its functions that are the steps; the others are in `SHARED`.
RECIPES = {
    "mf": ("matrix_factorization", {"fit": "_fit"}),
    "similarity": ("similarity", {"index": "subsample", "fit": "fit_kernel"}),
}
SHARED = {
    "arrays": ("pipeline", ("examples_of", "validation_folds", "data_fingerprint")),
    "encode": ("{folder}.train", ("encode_queries",)),
    "ranking": ("{folder}.train", ("fit_ranking",)),
    "calibrate": ("{folder}.train", ("settle",)),
    "novelty and drift": ("{folder}.train", ("centroids_of", "projection_of")),
    "export": ("{folder}.train", ("finish_static",)),
}


def prompts() -> pandas.DataFrame:
    """The distinct real prompts, with the file of each."""
    files = [*sorted((DATA / "general").glob("*.parquet")), *sorted((DATA / "arena_human").glob("*.parquet"))]
    files += [DATA / "mmlu_pro" / "performance_wide.parquet", DATA / "routellm_eval" / "mmlu.parquet"]
    tables = [pandas.read_parquet(file, columns=["prompt"]).assign(file=number) for number, file in enumerate(files)]
    return pandas.concat(tables).dropna().drop_duplicates("prompt").sample(frac=1, random_state=0)


def records_file(records: int, models: int) -> Path:
    """A parquet file of performance records; made where it is missing."""
    path = OUT / "scale" / f"{records}x{models}.parquet"
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    real = prompts()
    texts, files = real["prompt"].to_numpy(), real["file"].to_numpy()
    each = min(RECORDS_A_PROMPT, models)
    row = np.arange(-(-records // each))
    asked = np.argsort(random.random((len(row), models), np.float32), axis=1)[:, :each]
    # A model has an ability, and skills of its own in the prompts of each file; long prompts are harder.
    ability = np.linspace(2, -1, models) + 0.7 * random.standard_normal((files.max() + 1, models))
    length = np.log([len(text) for text in texts])
    place = row % len(texts)
    hard = 0.5 * (length - length.mean())[place]
    quality = 1 / (1 + np.exp(hard[:, None] - ability[files[place][:, None], asked]))
    score = random.random(quality.shape) < quality
    named = [texts[i] if n < len(texts) else f"{texts[i]} ({n // len(texts)})" for n, i in enumerate(place)]
    table = {
        "prompt": np.repeat(np.asarray(named, object), each),
        "model": [f"model-{number:03}" for number in asked.ravel()],
        "score": score.ravel().astype(np.float64),
    }
    pandas.DataFrame(table).head(records).to_parquet(path, row_group_size=50_000)
    return path


def peak_mb() -> float:
    """The most memory that this process ever held; ru_maxrss would be that of the process that forked this one."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def train(recipe: str, data: Path, out: Path) -> dict[str, Any]:
    """Train in this process as `routelearn train` does: seconds of each step, and the peak at the end of each."""
    found: dict[str, list[float]] = {}

    def timed(step: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def measured(*arguments: Any, **options: Any) -> Any:
            start = time.perf_counter()
            result = function(*arguments, **options)
            found[step] = [found.get(step, [0.0])[0] + time.perf_counter() - start, peak_mb()]
            return result

        return measured

    folder, own = RECIPES[recipe]
    module = import_module(f"routelearn.training.{folder}.train")
    places = [(step, "{folder}.train", name) for step, name in own.items()]
    places += [(step, where, name) for step, (where, names) in SHARED.items() for name in names]
    for step, where, name in places:
        holder = import_module(f"routelearn.training.{where.format(folder=folder)}")
        setattr(holder, name, timed(step, getattr(holder, name)))
    read = timed("read", import_module("routelearn.data.readers").read_many)
    settings = import_module("routelearn.cli.train").RECIPES[recipe].config
    records = [record for records in read([data]) for record in records.records]
    names = sorted({record.model for record in records})
    getattr(module, f"train_{folder}")(records, out, settings(strong=names[0], weak=names[-1]))
    return {"steps": found, "cpu": time.process_time(), "peak": peak_mb()}


def measure(recipe: str, size: str) -> dict[str, Any]:
    """Train in a process of its own."""
    data = records_file(*map(int, size.split("x")))
    command = [sys.executable, __file__, "--child", recipe, str(data), str(OUT / "scale" / f"{recipe}-{size}")]
    start = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    found = {"wall": time.perf_counter() - start, **json.loads(done.stdout.splitlines()[-1])}
    say(f"{recipe} {size}: {found['wall']:.1f} s, {found['peak']:,.0f} MB")
    return found


def lines(recipe: str, rows: dict[str, dict[str, Any]]) -> list[str]:
    """The table of one recipe: a row a size, a column a step."""
    steps = list(dict.fromkeys(step for row in rows.values() for step in row["steps"]))
    text = [
        f"### {recipe}",
        "",
        f"| records | models | wall, s | CPU, s | peak, MB | {' | '.join(steps)} | the rest |",
        "|---" * (len(steps) + 6) + "|",
    ]
    for size, row in rows.items():
        seconds = [row["steps"].get(step, [0.0])[0] for step in steps]
        shown = " | ".join(f"{value:.1f}" for value in [*seconds, row["wall"] - sum(seconds)])
        records, models = map(int, size.split("x"))
        text.append(f"| {records:,} | {models} | {row['wall']:.1f} | {row['cpu']:.1f} | {row['peak']:,.0f} | {shown} |")
    return [*text, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=list(RECIPES), choices=list(RECIPES))
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), metavar="RECORDSxMODELS")
    parser.add_argument("--quick", action="store_true", help=f"only {' and '.join(QUICK)}, measured again; prints")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        recipe, data, out = arguments.child
        print(json.dumps(train(recipe, Path(data), Path(out))))
        return
    text = [
        f"{RECORDS_A_PROMPT} records a prompt, two cores. The columns behind the peak are seconds of each step.",
        "",
    ]
    for recipe in arguments.only:
        if arguments.quick:
            rows = {size: measure(recipe, size) for size in QUICK}
        else:
            rows = {size: cached(f"scale/{recipe}-{size}", partial(measure, recipe, size)) for size in arguments.sizes}
        text += lines(recipe, rows)
    if arguments.quick:
        print("\n".join(text))
        return
    write_section("Training at scale", "python benchmarks/training_scale.py", text)


if __name__ == "__main__":
    main()
