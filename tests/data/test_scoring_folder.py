"""Files larger than memory: the same decisions, the kept columns, parts that are whole, and a job that goes on."""

from __future__ import annotations

import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas
import pyarrow
import pyarrow.parquet
import pytest
from helpers.cli import run

from routelearn.data.sample import generate_sample
from routelearn.data.scoring.engine import MAX_ERRORS, ScoringResult
from routelearn.data.scoring.file import score_file
from routelearn.data.scoring.folder import STATE, score_folder
from routelearn.data.scoring.selection import BatchOptions, comparison
from routelearn.policies.threshold import Threshold
from routelearn.routers.errors import DataError, InputError
from routelearn.routers.fallback import FallbackRouter
from routelearn.routers.learned import LearnedRouter

COMMAND = [sys.executable, "-m", "routelearn", "score"]
N = 1200
QUERIES = [query if isinstance(query, str) else str(query) for query in generate_sample(N, seed=8).queries][:N]


def table(start: int = 0, stop: int = N) -> pyarrow.Table:
    rows = range(start, stop)
    return pyarrow.table(
        {"id": list(rows), "language": ["en" if row % 3 else "de" for row in rows], "prompt": QUERIES[start:stop]}
    )


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six row groups."""
    path = tmp_path_factory.mktemp("big") / "big.parquet"
    pyarrow.parquet.write_table(table(), path, row_group_size=200)
    return path


def options(**changes: object) -> BatchOptions:
    return BatchOptions(**{"threshold": 0.5, "rows_per_part": 400, **changes})  # type: ignore[arg-type]


Job = Callable[..., tuple[ScoringResult, pandas.DataFrame]]


@pytest.fixture
def job(router: LearnedRouter, tmp_path: Path) -> Job:
    def run(*sources: object, out: str = "out", **changes: object) -> tuple[ScoringResult, pandas.DataFrame]:
        names = [str(source) for source in sources]
        result = score_folder(FallbackRouter(router), names, tmp_path / out, options(**changes), identity="a router")
        return result, pandas.read_parquet(tmp_path / out)

    return run


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_rows_and_decisions_are_those_of_the_router(job: Job, big: Path, router: LearnedRouter) -> None:
    result, frame = job(big)
    decisions = FallbackRouter(router).route_batch(QUERIES, Threshold(0.5))
    assert frame[["id", "language", "prompt"]].equals(table().to_pandas())
    assert frame["score"].to_list() == pytest.approx([decision.score for decision in decisions], abs=1e-6)
    assert frame["model"].to_list() == [decision.model for decision in decisions]
    assert frame["source"].to_list() == [decision.source for decision in decisions]
    assert (result.rows, result.parts, result.reused) == (N, 3, 0)
    assert result.to_strong == sum(decision.model == router.strong for decision in decisions)
    assert result.sources == frame["source"].value_counts().to_dict()


def test_a_file_and_a_folder_are_scored_by_one_engine(
    job: Job, big: Path, router: LearnedRouter, tmp_path: Path
) -> None:
    in_parts, parts = job(big)
    result = score_file(FallbackRouter(router), str(big), str(tmp_path / "out.parquet"), threshold=0.5)
    pandas.testing.assert_frame_equal(pandas.read_parquet(tmp_path / "out.parquet"), parts)
    assert (result.rows, result.to_strong, result.sources) == (in_parts.rows, in_parts.to_strong, in_parts.sources)
    assert (result.parts, result.reused, result.skipped, result.errors) == (0, 0, 0, [])


def test_bad_rows_of_a_file_are_counted_and_the_first_errors_kept(router: LearnedRouter, tmp_path: Path) -> None:
    lines = ["not JSON" if row % 2 else json.dumps({"prompt": f"What is {row} plus 2?"}) for row in range(60)]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    result = score_file(router, str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl"), skip_bad=True)
    assert (result.rows, result.skipped, len(result.errors)) == (30, 30, MAX_ERRORS)
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 30
    with pytest.raises(DataError, match="row 2"):
        score_file(router, str(tmp_path / "in.jsonl"), str(tmp_path / "no.jsonl"))
    assert not (tmp_path / "no.jsonl").exists()


def test_columns_and_rows_can_be_chosen(job: Job, big: Path) -> None:
    result, frame = job(big, keep=("id",), where=("language == en", "id < 600"), prefix="routed_")
    assert list(frame) == ["id", "routed_score", "routed_model", "routed_source"]
    assert frame["id"].to_list() == [row for row in range(600) if row % 3]
    assert result.rows == 400


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("language == en", ("language", "==", "en")),
        ('language != "en"', ("language", "!=", "en")),
        ("turns in [1, 2]", ("turns", "in", [1, 2])),
        ("a b>=2", ("a b", ">=", 2)),
    ],
)
def test_comparisons_are_read(text: str, expected: tuple[str, str, object]) -> None:
    assert comparison(text) == expected


@pytest.mark.parametrize("where", ["language", "nothing == 1", "id == [", "prompt < 3"])
def test_comparisons_that_fit_nothing_are_refused(job: Job, big: Path, where: str) -> None:
    with pytest.raises(InputError, match="where"):
        job(big, where=(where,))


def test_many_files_folders_and_formats_come_in_one_order(job: Job, tmp_path: Path) -> None:
    (tmp_path / "in" / "deeper").mkdir(parents=True)
    pyarrow.parquet.write_table(table(0, 300), tmp_path / "in" / "a.parquet")
    pyarrow.parquet.write_table(table(300, 500), tmp_path / "in" / "deeper" / "b.parquet")
    table(500, 800).to_pandas().to_csv(tmp_path / "c.csv", index=False)
    table(800, 1200).to_pandas().to_json(tmp_path / "d.jsonl", orient="records", lines=True)
    _, frame = job(tmp_path / "in", tmp_path / "c.csv", tmp_path / "d.jsonl", keep=("prompt",))
    assert frame["prompt"].to_list() == QUERIES


def test_a_folder_that_only_the_datasets_library_knows_streams(job: Job, tmp_path: Path) -> None:
    """As a hub dataset does: no file is named."""
    hub = tmp_path / "hub"
    hub.mkdir()
    table().to_pandas().to_json(hub / "train.jsonl", orient="records", lines=True)
    assert job(hub)[1]["id"].to_list() == list(range(N))


def test_chats_are_scored_as_everywhere(job: Job, tmp_path: Path, router: LearnedRouter) -> None:
    chat = [{"role": "user", "content": "Prove it."}, {"role": "assistant", "content": "What?"}]
    rows = [{"prompt": None, "messages": chat}, {"prompt": "What is 2 plus 2?", "messages": None}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "chats.parquet")
    frame = job(tmp_path / "chats.parquet")[1]
    expected = [decision.score for decision in FallbackRouter(router).route_batch([chat, "What is 2 plus 2?"])]
    assert frame["score"].to_list() == pytest.approx(expected, abs=1e-6)


def test_a_bad_row_is_named_or_skipped(job: Job, tmp_path: Path) -> None:
    texts: list[str | None] = list(QUERIES)
    texts[777] = None
    pyarrow.parquet.write_table(pyarrow.table({"prompt": texts}), tmp_path / "bad.parquet", row_group_size=200)
    with pytest.raises(DataError, match=r"bad.parquet.*row 778.*prompt"):
        job(tmp_path / "bad.parquet")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0000-00000.parquet", STATE]
    result, frame = job(tmp_path / "bad.parquet", skip_bad=True, out="skipped")
    assert (result.rows, result.skipped, len(result.errors)) == (N - 1, 1, 1)
    assert frame["prompt"].to_list() == [text for text in texts if text]


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_job_goes_on_where_it_ended(job: Job, big: Path, tmp_path: Path, suffix: str) -> None:
    """Of a parquet file by its row groups, of others by reading past what is there; the bytes are the same."""
    other = tmp_path / f"other.{suffix}"
    rows = pandas.concat([table().to_pandas()] * 20)
    if suffix == "csv":
        rows.to_csv(other, index=False)
    else:
        rows.to_json(other, orient="records", lines=True)
    whole, _ = job(big, other, rows_per_part=8192)
    expected = contents(tmp_path / "out")
    assert len(expected) == 1 + 1 + 3
    for name in ("0001-00001.parquet", "0000-00000.parquet"):
        (tmp_path / "out" / name).unlink()
        again, _ = job(big, other, rows_per_part=8192)
        assert (again.rows, again.to_strong, again.sources) == (whole.rows, whole.to_strong, whole.sources)
        assert (again.parts, again.reused) == (4, 3)
        assert contents(tmp_path / "out") == expected


def test_parts_of_two_jobs_never_mix(job: Job, big: Path, tmp_path: Path) -> None:
    job(big)
    with pytest.raises(InputError, match="another job: other options"):
        job(big, threshold=0.6)
    shutil.copy(big, tmp_path / "copy.parquet")
    with pytest.raises(InputError, match="another job: other files"):
        job(tmp_path / "copy.parquet")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.docx").touch()
    with pytest.raises(InputError, match="thesis"):
        job(big, out="full")
    (tmp_path / "out" / "0000-00001.parquet").write_bytes(b"not what was written")
    with pytest.raises(InputError, match=r"0000-00001\.parquet is not part of this job"):
        job(big)


def test_columns_that_do_not_fit_are_named(job: Job, big: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no columns \['nothing'\]"):
        job(big, keep=("nothing",), out="a")
    with pytest.raises(DataError, match="no such column"):
        job(big, columns={"prompt": "nothing", "messages": "nothing"}, out="b")
    job(big, out="c")
    with pytest.raises(InputError, match="--prefix"):
        job(tmp_path / "c", out="d")
    assert "routed_score" in job(tmp_path / "c", out="e", prefix="routed_")[1]


@pytest.mark.slow
def test_nothing_but_whole_parts_survives_a_kill(bundle: Path, tmp_path: Path) -> None:
    """kill -9 at random moments until the job is done: the same bytes as in one go."""
    source = tmp_path / "in.parquet"
    rows = pandas.concat([table().to_pandas()] * 100, ignore_index=True)
    rows.to_parquet(source, row_group_size=4000)
    command = [*COMMAND, str(bundle), str(source), "--rows-per-part", "8000", "-o"]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    expected = contents(tmp_path / "whole")
    generator, kills, parts = random.Random(0), 0, set()
    out = tmp_path / "killed"
    for _ in range(60):
        process = subprocess.Popen([*command, str(out)], stderr=subprocess.PIPE, start_new_session=True)
        seen = len(list(out.glob("0*.parquet"))) if out.exists() else 0
        try:
            # Killed when a few more parts are there, so that the number of runs does not depend on the machine.
            wanted = seen + generator.randrange(0, 4)
            while process.poll() is None and (len(list(out.glob("0*.parquet"))) if out.exists() else 0) < wanted:
                pass
            process.wait(generator.random() * 0.3)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
        parts.add(len(list(out.glob("0*.parquet"))) if out.exists() else 0)
        if process.returncode == 0:
            break
    assert kills >= 2
    assert len(parts) >= 3
    assert contents(out) == expected


@pytest.mark.slow
def test_the_command_says_what_it_would_do_and_what_it_did(bundle: Path, big: Path, tmp_path: Path) -> None:
    command = [*COMMAND, str(bundle), str(big), "-o", str(tmp_path / "out") + "/", "--threshold", "0.5"]
    told = subprocess.run([*command, "--dry-run"], check=True, capture_output=True, text=True).stderr
    assert "1,200 rows of 1 files into 1 parts" in told
    assert not (tmp_path / "out").exists()
    subprocess.run(command, check=True, capture_output=True)
    again = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    assert "1,200 rows in 1 parts, 1 of them already there" in again.replace("\n", " ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{big}", "{big}"], "folder"),
        (["{big}", "{big}", "-o", "out.jsonl"], "folder"),
        (["{big}", "-o", "out.jsonl", "--keep", "id"], "--keep"),
        (["{big}", "-o", "out.jsonl", "--engine", "ray"], "--engine given with -o out.jsonl"),
        (["{big}", "{big}", "-o", "out/"], "distinct files"),
        (["nothing.parquet", "-o", "out/"], "no such file"),
        (["{big}", "-o", "out/", "--where", "x"], "--where"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(
    bundle: Path, big: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    words = [argument.format(big=big) for argument in arguments]
    done = run("score", bundle, *words, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_two_ray_workers_write_the_same_bytes(bundle: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.parquet"
    rows = pandas.concat([table().to_pandas()] * 84, ignore_index=True)  # 100,800
    rows["id"] = np.arange(len(rows))
    rows.to_parquet(source, row_group_size=10_000)
    command = [*COMMAND, str(bundle), str(source), "--rows-per-part", "20000", "-o"]
    subprocess.run([*command, str(tmp_path / "local")], check=True, capture_output=True)
    on_ray = [*command, str(tmp_path / "ray"), "--engine", "ray", "--workers", "2"]
    told = subprocess.run(on_ray, check=True, capture_output=True, text=True).stderr
    assert "100,800 rows in 6 parts" in told.replace("\n", " ")
    assert not [line for line in told.splitlines() if any(word in line for word in ("INFO", "WARN", "Warning", "Tip"))]
    state = json.loads((tmp_path / "ray" / STATE).read_text())
    assert state["files"][0]["bytes"] == source.stat().st_size
    expected, with_ray = contents(tmp_path / "local"), contents(tmp_path / "ray")
    assert {name: data for name, data in with_ray.items() if name != STATE} == {
        name: data for name, data in expected.items() if name != STATE
    }


def test_the_recipe_of_the_documentation_runs(bundle: Path, tmp_path: Path) -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "scale.md").read_text()
    command = next(line for line in text.splitlines() if line.startswith("routelearn score"))
    (tmp_path / "data").mkdir()
    for number in range(2):
        pyarrow.parquet.write_table(table(600 * number, 600 * number + 600), tmp_path / "data" / f"{number}.parquet")
    shutil.copytree(bundle, tmp_path / "router")
    words = shlex.split(command)[2:]
    place = words.index("data/*.parquet")
    words[place : place + 1] = sorted(str(path) for path in (tmp_path / "data").glob("*.parquet"))
    done = run("score", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    frame = pandas.read_parquet(tmp_path / "scored")
    assert frame["id"].to_list() == [row for row in range(N) if row % 3]
    assert list(frame) == ["id", "score", "model", "source"]
