"""What commands write: nothing is replaced unasked, failed jobs block nothing, and the share that was got is said."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest
from helpers.cli import COMMAND, run

from routelearn.data.sample import POOL, Sample
from routelearn.data.scoring.folder import STATE
from routelearn.data.writers import write_records
from routelearn.routers.bundle import MANIFEST
from routelearn.routers.loading import load


@pytest.fixture(scope="module")
def files(sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    write_records([r for r in sample.performances if r.split == "test"], folder / "test.jsonl")
    write_records([r for r in sample.performances if r.split != "test"], folder / "train.jsonl")
    prompts = [query for query in sample.queries if isinstance(query, str)]
    language = ["en", "de"] * (len(prompts) // 2 + 1)
    pd.DataFrame({"prompt": prompts, "language": language[: len(prompts)]}).to_parquet(folder / "queries.parquet")
    return folder


@pytest.mark.slow
def test_no_command_replaces_an_output_unasked(bundle: Path, files: Path, tiny_encoder: Path, tmp_path: Path) -> None:
    data, queries = files / "test.jsonl", files / "queries.parquet"
    encoder = ("--encoder", tiny_encoder, "--strong", "sim-max", "--weak", "sim-small", "--max-tokens", 32)
    checked = ("--data", data, "--no-leak-check")
    out = {name: tmp_path / name for name in ("sample", "r.csv", "router", "report", "calibrated", "shares", "s.csv")}
    commands: dict[tuple[object, ...], Path] = {
        ("data", "sample", out["sample"], "--queries", 20): out["sample"] / "pool.json",
        ("data", "convert", data, out["r.csv"]): out["r.csv"],
        ("train", "mf", "--data", files / "train.jsonl", *encoder, "-o", out["router"]): out["router"] / MANIFEST,
        ("evaluate", bundle, *checked, "--bootstrap", 2, "-o", out["report"]): out["report"] / "report.html",
        ("calibrate", bundle, "--data", queries, "--strong-share", 0.3, "-o", out["calibrated"]): (
            out["calibrated"] / MANIFEST
        ),
        ("calibrate", bundle, "--data", queries, "--strong-share", 0.3, "--report", out["shares"]): (
            out["shares"] / "calibration.json"
        ),
        ("score", bundle, queries, "-o", out["s.csv"]): out["s.csv"],
    }
    for command, written in commands.items():
        done = run(*command)
        assert done.returncode == 0, done.stderr
        before = written.read_bytes()
        written.write_bytes(before + b" ")
        again = run(*command)
        assert (again.returncode, "is there already" in again.stderr) == (2, True), command
        assert written.read_bytes() == before + b" "
        forced = run(*command, "--force")
        assert forced.returncode == 0, forced.stderr
        assert written.read_bytes() != before + b" "


def test_a_job_that_failed_before_its_first_part_blocks_nothing(bundle: Path, files: Path, tmp_path: Path) -> None:
    job = ("score", bundle, files / "queries.parquet", "-o", tmp_path / "out")
    failed = run(*job, "--where", "lang == en")
    assert (failed.returncode, failed.stderr.count("'lang', and there is no such column")) == (2, 1)
    assert "['prompt', 'language']" in failed.stderr
    assert run(*job, "--where", "language == en").returncode == 0
    assert len(pd.read_parquet(tmp_path / "out")) < len(pd.read_parquet(files / "queries.parquet"))


def test_bad_rows_can_be_skipped_after_they_stopped_a_job(bundle: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"Say {i}."} for i in range(3 * 8192)]
    rows[-1] = {"prompt": 5}  # type: ignore[dict-item]
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    pd.DataFrame({"prompt": ["Why?"] * 8192 * 2}).to_parquet(tmp_path / "a.parquet", row_group_size=8192)
    pd.DataFrame({"prompt": ["Why?", None]}).to_parquet(tmp_path / "b.parquet")
    job = ("score", bundle, tmp_path / "a.parquet", tmp_path / "b.parquet", "-o", tmp_path / "out")
    assert run(*job).returncode == 2
    assert len(list((tmp_path / "out").glob("*.parquet"))) == 1
    done = run(*job, "--skip-bad")
    assert (done.returncode, "1 of them already there" in done.stderr) == (0, True), done.stderr
    assert len(pd.read_parquet(tmp_path / "out")) == 8192 * 2 + 1
    other = run(*job)  # would keep what was left out
    assert (other.returncode, "another job" in other.stderr) == (2, True)


def test_parts_of_another_job_are_kept_or_replaced_as_asked(bundle: Path, files: Path, tmp_path: Path) -> None:
    job = ("score", bundle, files / "queries.parquet", "-o", tmp_path / "out")
    assert run(*job, "--threshold", 0.1).returncode == 0
    (part,) = (tmp_path / "out").glob("*.parquet")
    before = part.read_bytes()
    refused = run(*job, "--threshold", 0.9)
    assert (refused.returncode, "another job" in refused.stderr, "--force" in refused.stderr) == (2, True, True)
    assert part.read_bytes() == before
    assert run(*job, "--threshold", 0.9, "--force").returncode == 0
    assert part.read_bytes() != before
    (tmp_path / "out" / STATE).write_text("{")
    assert run(*job, "--threshold", 0.9).returncode == 2
    assert "already there" in run(*job, "--threshold", 0.9, "--force").stderr or part.is_file()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    assert run(*job[:-1], tmp_path / "mine", "--force").returncode == 2
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"


def test_score_says_the_share_that_it_got_and_how_to_mend_it(bundle: Path, files: Path, tmp_path: Path) -> None:
    """The suggested command runs, and what it writes gives the share that was asked for."""
    scores = load(bundle).score(pd.read_parquet(files / "queries.parquet")["prompt"].tolist())
    easy = pd.read_parquet(files / "queries.parquet")[scores < pd.Series(scores).quantile(0.5)]
    easy.rename(columns={"prompt": "my question"}).to_parquet(tmp_path / "easy ones.parquet")
    job = ("score", bundle, "easy ones.parquet", "--map", "prompt=my question", "--strong-share", 0.5)
    done = run(*job, "-o", "out.parquet", cwd=tmp_path)
    assert "asked for 50.0% to sim-max, got " in done.stderr
    (command,) = [line for line in done.stderr.splitlines() if line.startswith("routelearn calibrate")]
    assert run(*shlex.split(command)[1:], cwd=tmp_path).returncode == 0
    job = ("score", "calibrated", *job[2:])
    done = run(*job, "-o", "parts", cwd=tmp_path)
    got = float(done.stderr.split("got ")[1].split("%")[0])
    assert abs(got - 50) <= 4
    none = ("--strong-share", 0, "--no-general")
    close = run("score", bundle, files / "queries.parquet", "-o", tmp_path / "all.csv", *none)
    assert "got 0.0%" in close.stderr and "routelearn calibrate" not in close.stderr


def test_calibrate_says_the_share_that_it_got(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "q.txt").write_text("Say hello.\n" * 50)
    done = run("calibrate", bundle, "--data", tmp_path / "q.txt", "--strong-share", 0.3)
    assert "asked for 30.0% to sim-max, got 100.0%" in done.stderr


def test_rules_are_evaluated_and_calibrated_as_routers_are(bundle: Path, files: Path, tmp_path: Path) -> None:
    data, pair = ("--data", files / "test.jsonl", "--no-leak-check"), ("--strong", "sim-max", "--weak", "sim-small")
    alone = run("evaluate", "rules", *data, *pair, "--bootstrap", 2)
    prices = tmp_path / "prices.json"
    prices.write_text(json.dumps([{"name": m.name, "input_price": 1, "output_price": 2} for m in POOL]))
    beside = run("evaluate", bundle, "rules", *data, "--bootstrap", 2, "--pool", prices)
    for done in (alone, beside):
        assert done.returncode == 0, done.stderr
        (line,) = [line for line in done.stdout.splitlines() if line.startswith("│ rules")]
    assert "AIQ" in beside.stdout
    nameless = run("evaluate", "rules", *data)
    assert (nameless.returncode, "--strong and --weak" in nameless.stderr) == (2, True)
    own = tmp_path / "own.toml"
    own.write_text("bias = 0.5\nthreshold = 0.5\n[rules.word]\npattern = 'e'\nweight = -1.0\n")
    other = run("evaluate", "rules", *data, *pair, "--rules", own, "--bootstrap", 2)
    assert (other.returncode, line in other.stdout) == (0, False), other.stderr
    share = run("calibrate", "rules", *pair, "--data", files / "queries.parquet", "--strong-share", 0.3)
    assert (share.returncode, "write this into your file of rules: threshold = 0." in share.stderr) == (0, True)
    loss = run("calibrate", "rules", *pair, *data, "--max-quality-loss", 0.3)
    assert (loss.returncode, "guarantee: " in loss.stdout) == (0, True), loss.stderr
    written = run("calibrate", "rules", *pair, *data[:2], "--strong-share", 0.3, "-o", tmp_path / "out")
    assert (written.returncode, "no bundle to write" in written.stderr) == (2, True)
    refused = run("calibrate", bundle, *pair, *data[:2], "--strong-share", 0.3)
    assert (refused.returncode, "no effect on the bundle" in refused.stderr) == (2, True)


@pytest.mark.slow
def test_serve_refuses_a_taken_port_and_a_short_token_in_plain_words(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("short\n")
    short = run("serve", bundle, "--token-file", tmp_path / "token")
    assert (short.returncode, "has 5 characters; expected 16 or more" in short.stderr) == (2, True)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run("serve", bundle, "--port", port)
    assert (
        done.returncode,
        f"port {port} of 127.0.0.1 is in use by another process; choose another" in done.stderr,
    ) == (2, True)
    far = run("serve", bundle, "--port", 80_000)
    assert (far.returncode, "expected a number from 0 to 65535" in far.stderr) == (2, True)


@pytest.mark.parametrize("command", ["score", "serve", "inspect", "route", "evaluate", "calibrate", "extend", "export"])
def test_a_removed_bundle_is_named_in_plain_words(command: str, files: Path, tmp_path: Path) -> None:
    more: dict[str, tuple[object, ...]] = {
        "score": (files / "queries.parquet",),
        "route": ("Why?",),
        "evaluate": ("--data", files / "test.jsonl", "--no-leak-check"),
        "calibrate": ("--data", files / "queries.parquet", "--strong-share", 0.3),
        "extend": ("--data", files / "test.jsonl"),
        "export": ("--format", "text", "-o", tmp_path / "out"),
    }
    done = run(command, tmp_path / "gone", *more.get(command, ()))
    assert done.returncode == 2
    assert f"no bundle at {tmp_path / 'gone'}: there is no such folder" in done.stderr


def heed_ctrl_c() -> None:
    """In the new process: tests that run in the background of a shell inherit that Ctrl-C is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.slow
def test_ctrl_c_says_what_is_kept_and_the_job_goes_on(bundle: Path, tmp_path: Path) -> None:
    rows = 20 * 8192
    long = " and then explain each step of the proof in your own words" * 20  # so that the job takes seconds
    pd.DataFrame({"prompt": [f"Prove lemma {i}{long}." for i in range(rows)]}).to_parquet(
        tmp_path / "q.parquet", row_group_size=8192
    )
    out = tmp_path / "out"
    job = ("score", str(bundle), str(tmp_path / "q.parquet"), "-o", str(out), "--rows-per-part", "8192")
    process = subprocess.Popen(
        [*COMMAND, *job],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=heed_ctrl_c,  # noqa: PLW1509 - no thread is between here and the command
    )
    until = time.monotonic() + 120
    while not (out.is_dir() and list(out.glob("*.parquet"))) and time.monotonic() < until:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert f"stopped: finished parts stay in {out}, and the same command goes on from there" in said
    assert "Traceback" not in said
    done = subprocess.run([*COMMAND, *job], capture_output=True, text=True, check=True, timeout=300)
    assert "already there" in done.stderr
    assert sum(len(pd.read_parquet(part)) for part in out.glob("*.parquet")) == rows
