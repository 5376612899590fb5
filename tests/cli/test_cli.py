"""The command line as a user meets it: what it writes, its files, and its exit codes."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.cli import QUERIES, run, run_process

from routelearn.data.readers import read_records
from routelearn.data.sample import write_sample
from routelearn.data.splits import deduplicate
from routelearn.routers.decision import Decision
from routelearn.routers.fallback import FallbackRouter
from routelearn.routers.loading import load


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    write_sample(folder, 400, seed=2)
    return folder


def write_queries(folder: Path, suffix: str) -> Path:
    path = folder / f"in{suffix}"
    frame = pd.DataFrame({"id": range(len(QUERIES)), "prompt": QUERIES})
    if suffix == ".txt":
        path.write_text("\n".join(QUERIES) + "\n", encoding="utf-8")
    elif suffix == ".parquet":
        frame.to_parquet(path)
    elif suffix == ".csv":
        frame[frame.prompt != ""].to_csv(path, index=False)
    else:
        frame.to_json(path, orient="records", lines=True)
    return path


def read_scored(path: Path) -> pd.DataFrame:
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    if path.suffix == ".csv":
        return pd.read_csv(path)
    return pd.DataFrame([json.loads(line) for line in path.read_text().splitlines()])


@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".csv", ".parquet"])
@pytest.mark.parametrize("out", [".jsonl", ".csv", ".parquet"])
def test_score_adds_score_model_and_source(bundle: Path, tmp_path: Path, suffix: str, out: str) -> None:
    done = run("score", bundle, write_queries(tmp_path, suffix), "-o", tmp_path / f"out{out}")
    assert done.returncode == 0, done.stderr
    found = read_scored(tmp_path / f"out{out}")
    queries = [query for query in QUERIES if query or suffix != ".csv"]
    decisions = FallbackRouter(load(bundle)).route_batch(queries)
    assert np.allclose(found["score"], [decision.score for decision in decisions], atol=1e-6)
    assert list(found["model"]) == [decision.model for decision in decisions]
    assert list(found["source"]) == [decision.source for decision in decisions]
    if suffix != ".txt":
        assert "id" in found.columns
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_column_that_is_empty_at_first_keeps_its_type(bundle: Path, tmp_path: Path) -> None:
    rows = 9000
    frame = pd.DataFrame(
        {
            "prompt": ["Say hello to Ana."] * rows,
            "cost": [None] * (rows - 1) + [0.5],
            "kind": pd.Categorical(["a"] * rows),
        }
    )
    frame.to_parquet(tmp_path / "in.parquet")
    assert run("score", bundle, tmp_path / "in.parquet", "-o", tmp_path / "out.parquet").returncode == 0
    scored = pd.read_parquet(tmp_path / "out.parquet")
    assert (scored["cost"].iloc[-1], scored["kind"].iloc[-1], len(scored)) == (0.5, "a", rows)
    frame.drop(columns="kind").to_json(tmp_path / "in.jsonl", orient="records", lines=True)
    done = run("score", bundle, tmp_path / "in.jsonl", "-o", tmp_path / "out2.parquet")
    said = "row 9000, column 'cost': of another type than in the rows before"
    assert (done.returncode, said in " ".join(done.stderr.split())) == (2, True)
    assert not (tmp_path / "out2.parquet").exists()


def test_leaked_prompts_can_be_left_out(bundle: Path, files: Path) -> None:
    data = files / "performance.jsonl"
    done = run("evaluate", bundle, "--data", data, "--train", data, "--drop-leaks", "--bootstrap", 20)
    assert done.returncode == 0, done.stderr
    assert "left out" in done.stderr


@pytest.mark.slow
def test_score_reads_stdin_and_writes_stdout(bundle: Path) -> None:
    done = run_process("score", bundle, "-", stdin="Say hello to Ana.\nProve it step by step.\n")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["prompt"] for row in rows] == ["Say hello to Ana.", "Prove it step by step."]
    chat = json.dumps({"messages": [{"role": "user", "content": "Say hello to Ana."}]})
    again = json.loads(run_process("score", bundle, "-", stdin=chat + "\n").stdout)
    assert again["score"] == pytest.approx(rows[0]["score"], abs=1e-6)


def test_score_of_an_empty_file_is_empty(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("")
    assert run("score", bundle, tmp_path / "in.txt", "-o", tmp_path / "out.jsonl").returncode == 0
    assert (tmp_path / "out.jsonl").read_text() == ""


def test_a_threshold_by_value_or_by_share_decides(bundle: Path, files: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    assert run("score", bundle, files / "queries.txt", "-o", out, "--threshold", "0").returncode == 0
    scored = read_scored(out)
    assert set(scored[scored.source == "learned"].model) == {"sim-max"}
    again = ("score", bundle, files / "queries.txt", "-o", out, "--force")
    assert run(*again, "--strong-share", "0.2").returncode == 0
    scored = read_scored(out)
    share = (scored[scored.source == "learned"].model == "sim-max").mean()
    assert share < 0.5
    both = run("score", bundle, files / "queries.txt", "--threshold", "0.5", "--strong-share", "0.2")
    assert (both.returncode, "one of them" in both.stderr) == (2, True)


@pytest.mark.parametrize(
    ("line", "problem"), [('{"prompt": 3}', "of type int"), ("{", "not JSON"), ('{"text": "x"}', "missing")]
)
def test_a_bad_row_exits_with_2_and_leaves_no_output(bundle: Path, tmp_path: Path, line: str, problem: str) -> None:
    (tmp_path / "in.jsonl").write_text('{"prompt": "fine"}\n' + line + "\n")
    done = run("score", bundle, tmp_path / "in.jsonl", "-o", tmp_path / "out.jsonl")
    assert done.returncode == 2
    assert "in.jsonl, row 2" in done.stderr
    assert problem in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]
    skipped = run("score", bundle, tmp_path / "in.jsonl", "-o", tmp_path / "out.jsonl", "--skip-bad")
    assert (skipped.returncode, "skipped:" in skipped.stderr) == (0, True)
    assert len(read_scored(tmp_path / "out.jsonl")) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("score", "nowhere", "in.txt"),
        ("score", "{bundle}", "nowhere.txt"),
        ("score", "{bundle}", "{files}/performance.jsonl"),
        ("score", "{bundle}", "{files}/queries.txt", "-o", "out.xml"),
        ("score", "{bundle}", "{files}/queries.txt", "-o", "no-folder/out.csv"),
        ("route", "nowhere", "text"),
        ("route", "{bundle}", "not a chat", "--chat"),
        ("inspect", "nowhere"),
        ("train", "mf", "--data", "nowhere.parquet", "--out", "out"),
        ("train", "mf", "--data", "{files}/performance.jsonl", "--out", "out"),
        ("train", "mf", "--data", "{files}/performance.jsonl", "--out", "out", "--strong", "x", "--weak", "sim-max"),
        ("train", "mf", "--data", "{files}/performance.jsonl", "--out", "out", "--rank", "0"),
        ("train", "mf", "--data", "{files}/performance.jsonl", "--out", "{files}"),
        ("train", "mf", "--data", "{files}/performance.jsonl", "--out", "out", "--config", "{files}/README.txt"),
        ("evaluate", "{bundle}", "--data", "{files}/performance.jsonl", "--train", "{files}/performance.jsonl"),
        ("data", "validate", "{files}/pool.json"),
        ("data", "validate", "{files}/performance.jsonl", "--map", "prompt"),
        ("data", "convert", "{files}/performance.jsonl", "out.xml"),
        ("no-such-command",),
    ],
)
def test_bad_input_exits_with_2_and_one_line(bundle: Path, files: Path, arguments: tuple[str, ...]) -> None:
    done = run(*(argument.format(bundle=bundle, files=files) for argument in arguments))
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.strip()


@pytest.mark.slow
def test_the_process_ends_with_the_code_and_without_a_traceback() -> None:
    refused = run_process("score", "nowhere", "in.txt")
    assert (refused.returncode, "Traceback" in refused.stderr) == (2, False)
    assert refused.stderr.startswith("error: ")
    assert run_process("--help").returncode == 0


def test_route_prints_a_decision_as_json(bundle: Path) -> None:
    decision = json.loads(run("route", bundle, "Prove it step by step.").stdout)
    assert set(decision) == {field.name for field in dataclasses.fields(Decision)}
    assert (decision["cause"], decision["propensity"]) == ("threshold", 1.0)
    assert decision["candidates"][0] == decision["model"]
    chat = json.dumps([{"role": "user", "content": "Prove it step by step."}])
    again = json.loads(run("route", bundle, chat, "--chat").stdout)
    assert again["score"] == pytest.approx(decision["score"], abs=1e-6)


def test_rules_route_without_a_bundle() -> None:
    decision = json.loads(run("route", "rules", "Turtles.", "--strong", "big", "--weak", "small").stdout)
    assert (decision["model"], decision["source"]) == ("small", "rules")
    premium = run("route", "rules", "Turtles.", "--strong", "big", "--weak", "small", "--tier", "premium")
    assert json.loads(premium.stdout)["model"] == "big"


def test_a_broken_bundle_fails_unless_a_fallback_is_asked_for(bundle: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(bundle, tmp_path / "broken"))
    (broken / "model.onnx").write_bytes(b"broken")
    assert run("route", broken, "hi").returncode == 2
    decision = json.loads(run("route", broken, "hi", "--fallback", "--strong", "big", "--weak", "small").stdout)
    assert decision["source"] == "rules"
    assert "BundleCorruptError" in decision["reason"]


def test_train_evaluate_inspect(files: Path, tiny_encoder: Path, tmp_path: Path) -> None:
    out = tmp_path / "router"
    (tmp_path / "mf.toml").write_text(f'encoder = "{tiny_encoder}"\npath_steps = 3\nweak = "sim-nano"\n')
    data = files / "performance.jsonl"
    common = ["train", "mf", "--data", data, "--out", out, "--config", tmp_path / "mf.toml", "--strong", "sim-max"]
    dry = run(*common, "--dry-run")
    assert (dry.returncode, "dry run" in dry.stderr, out.exists()) == (0, True, False)
    done = run(*common, "--weak", "sim-small", "--pool", files / "pool.json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(run("inspect", out, "--json").stdout)
    assert (summary["strong"], summary["weak"]) == ("sim-max", "sim-small")
    assert load(out).pool[1].output_price == 30.0
    shown = run("inspect", out).stdout
    assert "matrix-factorization" in shown
    assert load(out).manifest.training["encoder_fingerprint"] in shown
    report = run(
        "evaluate",
        out,
        "--data",
        data,
        "--split",
        "test",
        "--train",
        data,
        "--bootstrap",
        50,
        "-o",
        tmp_path / "report",
    )
    assert report.returncode == 0, report.stderr
    rows = {
        row["router"]: row["values"] for row in json.loads((tmp_path / "report/report.json").read_text())["results"]
    }
    baselines = {"rules", "random", "kNN", "k-means", "always-weak", "always-strong", "best single by task", "oracle"}
    assert set(rows) == {"router", *baselines}
    assert rows["oracle"]["apgr"] > rows["router"]["apgr"] > rows["random"]["apgr"]
    page = (tmp_path / "report/report.html").read_text()
    assert page.count("<svg") == 3  # curves, reliability, pool
    assert "http-equiv" not in page and "src=" not in page


def test_evaluate_wants_the_training_files(bundle: Path, files: Path) -> None:
    done = run("evaluate", bundle, "--data", files / "performance.jsonl", "--split", "test")
    assert (done.returncode, "--train" in done.stderr) == (2, True)
    leaked = run("evaluate", bundle, "--data", files / "performance.jsonl", "--train", files / "performance.jsonl")
    assert (leaked.returncode, "stand in the training data" in leaked.stderr) == (2, True)


def test_train_similarity_and_extend(files: Path, tiny_encoder: Path, tmp_path: Path) -> None:
    out = tmp_path / "router"
    pair = ["--strong", "sim-max", "--weak", "sim-small", "--encoder", tiny_encoder]
    few = [files / "performance.jsonl", "--models", "sim-max,sim-small"]
    done = run("train", "similarity", "--data", *few, "--out", out, *pair)
    assert done.returncode == 0, done.stderr
    done = run("extend", out, "--data", files / "performance.jsonl", "--pool", files / "pool.json")
    assert done.returncode == 0, done.stderr
    assert set(load(out).models) == {"sim-max", "sim-small", "sim-large", "sim-nano"}


def test_data_commands(files: Path, tmp_path: Path) -> None:
    done = run("data", "validate", files / "performance.jsonl", "--against", files / "preferences.jsonl")
    assert (done.returncode, "1,600" in done.stdout) == (2, True)  # the same prompts stand in both
    assert run("data", "convert", files / "preferences.jsonl", tmp_path / "p.parquet", "--dedupe").returncode == 0
    kept, dropped = deduplicate(read_records(files / "preferences.jsonl").records)
    assert len(pd.read_parquet(tmp_path / "p.parquet")) == len(kept) == 800 - dropped
    assert run("data", "sample", tmp_path / "s", "--queries", 50).returncode == 0
