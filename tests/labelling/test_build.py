"""From prompts to a router: what it costs, that it is the same after kills, and what it refuses before it pays."""

from __future__ import annotations

import hashlib
import json
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas
import pytest
from conftest import DATA
from helpers.judges import parts_of
from helpers.recorded_models import RecordedModels
from typer.testing import CliRunner, Result

import routelearn
from routelearn.cli.main import app
from routelearn.routers.errors import InputError

PRICES = {"strong": (10.0, 30.0), "weak": (0.6, 0.6)}


def _sums(folder: Path, count: int = 120) -> dict[str, dict[str, str]]:
    """Prompts with an answer key, and answers; the weak model fails at long sums."""
    chance = random.Random(0)
    recorded: dict[str, dict[str, str]] = {name: {} for name in PRICES}
    rows = []
    for number in range(count):
        terms = [chance.randint(1, 99) for _ in range(chance.randint(2, 12))]
        prompt = f"{number}. What is {' + '.join(map(str, terms))}?"
        rows.append({"prompt": prompt, "reference": str(sum(terms))})
        for name, least in (("strong", 12), ("weak", 6)):
            recorded[name][prompt] = f"The sum is {sum(terms) + 7 * (len(terms) > least)}."
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return recorded


def _arguments(folder: Path, *options: str) -> list[str]:
    files = [str(folder / "prompts.jsonl"), "--models", str(folder / "models.toml"), "--out", str(folder / "router")]
    return ["build", *files, "--strong", "strong", "--weak", "weak", *options]


def _run(folder: Path, server: RecordedModels, *options: str) -> Result:
    server.write_models(folder / "models.toml", PRICES)
    return CliRunner().invoke(app, _arguments(folder, *options))


def _contents(folder: Path) -> dict[str, str]:
    """A hash of every file but the journals, whose latencies differ, and the log of the training, which has times."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not re.search(r"journal|\.training/|answers\.jsonl", str(path))
    }


@pytest.mark.slow
def test_prompts_with_answer_keys_become_a_router_with_a_report_and_a_verdict(tmp_path: Path) -> None:
    recorded = _sums(tmp_path)
    with RecordedModels(recorded=recorded) as server:
        dry = _run(tmp_path, server, "--grader", "number", "--dry-run")
        assert dry.exit_code == 0 and server.counts.calls == 0
        done = _run(tmp_path, server, "--grader", "number", "--budget-usd", "5", "--max-quality-loss", "0.2")
        assert done.exit_code == 0, done.output
        assert server.counts.calls == 240
    assert re.match(r"(deploy|label more): ", done.stdout)
    router = routelearn.load(tmp_path / "router")
    assert (router.strong, router.weak) == ("strong", "weak")
    scores = router.score([f"What is {' + '.join(map(str, range(31, 31 + count)))}?" for count in (2, 12)])
    assert scores[1] > scores[0]
    report = json.loads((tmp_path / "router.build" / "report" / "report.json").read_text())
    assert {result["router"] for result in report["results"]} >= {"router", "general", "kNN", "rules", "oracle"}
    verdict = json.loads((tmp_path / "router.build" / "verdict.json").read_text())
    assert done.stdout.startswith(verdict["action"])


@pytest.mark.slow
def test_a_budget_buys_a_part_of_the_prompts_or_says_what_is_needed(tmp_path: Path) -> None:
    with RecordedModels(recorded=_sums(tmp_path)) as server:
        none = _run(tmp_path, server, "--grader", "number", "--budget-usd", "0.000001")
        assert isinstance(none.exception, InputError) and "buy no prompt" in str(none.exception)
        few = _run(tmp_path, server, "--grader", "number", "--budget-usd", "0.013")
        assert isinstance(few.exception, InputError)
        needed = float(re.search(r"expected 60 or more: ([\d.]+) USD", str(few.exception))[1])  # type: ignore[index]
        assert 0.013 < needed < 0.2
        part = _run(tmp_path, server, "--grader", "number", "--budget-usd", str(needed + 0.01))
        assert part.exit_code == 0, part.output
        assert 120 <= server.counts.calls < 240


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--budget-usd", "1"], "no grader; expected a grader"),
        (["--grader", "number"], "no budget is given"),
        (["--budget-usd", "1", "--judge", "other"], r"has no models \['other'\]"),
        (["--budget-usd", "1", "--grader", "number", "--weak", "strong"], "strong and weak are both 'strong'"),
        (["--budget-usd", "1", "--grader", "number", "--held-out", "2"], "held_out is 2.0"),
        (["--budget-usd", "1", "--grader", "number", "--max-quality-loss", "0"], "max_quality_loss is 0.0"),
        (["--budget-usd", "1", "--grader", "number", "--judge", "strong"], "expected one of them"),
    ],
)
def test_what_cannot_end_well_is_refused_before_anything_is_asked(
    tmp_path: Path, options: list[str], said: str
) -> None:
    _sums(tmp_path)
    server = RecordedModels()
    server._port = 9
    refused = _run(tmp_path, server, *options)
    assert isinstance(refused.exception, InputError), refused.output
    assert re.search(said, str(refused.exception))
    assert not (tmp_path / "router.build" / "answers.jsonl.journal").exists()


@pytest.mark.slow
def test_the_folder_of_another_job_is_refused(tmp_path: Path) -> None:
    (tmp_path / "router.build").mkdir()
    (tmp_path / "router.build" / "build.json").write_text('{"strong": "another"}')
    _sums(tmp_path)
    with RecordedModels() as server:
        refused = _run(tmp_path, server, "--grader", "number", "--budget-usd", "1")
        assert isinstance(refused.exception, InputError) and "holds another job" in str(refused.exception)
        assert server.counts.calls == 0


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="the real data is not there: ROUTELEARN_DATA")
def test_a_build_of_recorded_answers_is_the_same_bytes_after_ten_kills(tmp_path: Path) -> None:
    table = pandas.read_parquet(DATA / "routellm_eval" / "gsm8k.parquet").drop_duplicates(["prompt", "model"])
    table["model"] = table["model"].map(lambda name: "strong" if "gpt-4" in name else "weak")
    prompts = table[table["model"] == "strong"].head(300)
    recorded = {name: dict(zip(part["prompt"], part["response"], strict=True)) for name, part in table.groupby("model")}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    options = ("--grader", "number", "--budget-usd", "50", "--max-quality-loss", "0.2")
    with RecordedModels(recorded=recorded, full=0.05) as server:
        for folder in (whole, killed):
            folder.mkdir()
            keys = prompts["reference"].str.rsplit("####").str[-1].str.strip()
            rows = [{"prompt": prompt, "reference": key} for prompt, key in zip(prompts["prompt"], keys, strict=True)]
            (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            server.write_models(folder / "models.toml", PRICES)
        assert CliRunner().invoke(app, _arguments(whole, *options)).exit_code == 0
        asked = sum(server.answered.values())
        assert asked == 600
        kills = _kill_ten_times(killed, server, _arguments(killed, *options))
        assert CliRunner().invoke(app, _arguments(killed, *options)).exit_code == 0
        again = sum(server.answered.values()) - 2 * asked
    assert kills == 10
    assert 0 <= again <= 10 * 16
    assert _contents(killed) == _contents(whole)
    assert (killed / "router" / "router.json").is_file() and (killed / "router.build" / "verdict.json").is_file()


@dataclass
class RecordedJudge(RecordedModels):
    """The models of AlpacaEval and its judge: the one who knows, of each pair of answers, which one won."""

    preferred: Mapping[tuple[str, str], bool] = field(default_factory=dict)

    def reply(self, model: str, prompt: str) -> str:
        if model != "judge":
            return super().reply(model, prompt)
        parts = parts_of(prompt)
        first, second = parts["answer A"].strip(), parts["answer B"].strip()
        return f"[[{'A' if self.preferred[first, second] else 'B'}]]"


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="the real data is not there: ROUTELEARN_DATA")
def test_a_build_with_a_judge_learns_from_its_recorded_verdicts(tmp_path: Path) -> None:
    table = pandas.read_parquet(DATA / "alpaca_eval" / "responses.parquet")
    names = {"gpt4_1106_preview": "strong", "Mixtral-8x7B-Instruct-v0.1": "weak"}
    table = table[table["model"].isin(list(names))].drop_duplicates(["prompt", "model"])
    pairs = table.pivot_table(index="prompt", columns="model", values="response", aggfunc="first", observed=True)
    scores = table[table["model"] == "Mixtral-8x7B-Instruct-v0.1"].set_index("prompt")["score"]
    pairs = pairs[pairs.ne("").all(axis=1)].dropna().head(300)
    recorded = {mine: dict(pairs[theirs]) for theirs, mine in names.items()}
    preferred = {}
    for prompt, answers in pairs.iterrows():
        strong, weak = (str(answers[name]).strip() for name in names)
        weak_wins = bool(scores[prompt] > 0.5)
        preferred |= {(weak, strong): weak_wins, (strong, weak): not weak_wins}
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in pairs.index))
    with RecordedJudge(recorded=recorded, preferred=preferred) as server:
        server.write_models(tmp_path / "models.toml", {**PRICES, "judge": (10.0, 30.0)})
        done = CliRunner().invoke(app, _arguments(tmp_path, "--judge", "judge", "--budget-usd", "50"))
        assert done.exit_code == 0, done.output
    build = tmp_path / "router.build"
    rows = [json.loads(line) for line in (build / "records.jsonl").read_text().splitlines()]
    assert len(rows) == len(pairs)
    for row in rows:
        assert row["preference"] == float(not scores[row["prompt"]] > 0.5)
    report = json.loads((build / "report" / "report.json").read_text())
    won = [row for row in rows if row["preference"] == 1]
    assert report["strong_quality"] == pytest.approx(len(won) / len(rows), abs=0.1)
    assert "points of the win rate" in done.stdout


def _kill_ten_times(folder: Path, server: RecordedModels, arguments: list[str]) -> int:
    """SIGKILL the command seven times while it asks, and three times while it trains and proves."""
    chance = random.Random(0)
    kills = 0
    for after in (20, 90, 170, 250, 330, 410, 500):
        start = sum(server.answered.values())
        done_before = start - 600
        process = subprocess.Popen(
            [sys.executable, "-m", "routelearn", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and sum(server.answered.values()) - 600 < max(after, done_before + 1):
            time.sleep(0.002)
        kills += _killed(process)
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-m", "routelearn", *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("training on"):
                break
        time.sleep(chance.random())
        kills += _killed(process)
        process.stderr.close()
    return kills


def _killed(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> bool:
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


@pytest.mark.slow
def test_a_model_that_answers_nothing_and_a_judge_that_says_nothing_end_the_build_after_the_pilot(
    tmp_path: Path,
) -> None:
    recorded = _sums(tmp_path)
    silent = {**recorded, "strong": dict.fromkeys(recorded["strong"], "")}
    with RecordedModels(recorded=silent) as server:
        ended = _run(tmp_path, server, "--grader", "number", "--budget-usd", "5")
        assert isinstance(ended.exception, InputError) and "model 'strong' answered nothing" in str(ended.exception)
        assert server.counts.calls == 60
    shutil.rmtree(tmp_path / "router.build")
    for verdict, said in (("I like both.", "gave no verdict on 16 of 16"), ("[[A]]", "make every pair a tie")):
        with RecordedModels(recorded={**recorded, "judge": _Always(verdict)}) as server:
            server.write_models(tmp_path / "models.toml", {**PRICES, "judge": (1.0, 1.0)})
            options = ("--judge", "judge", "--budget-usd", "5")
            ended = CliRunner().invoke(app, _arguments(tmp_path, *options))
            assert isinstance(ended.exception, InputError) and said in str(ended.exception)
        shutil.rmtree(tmp_path / "router.build")


class _Always(dict[str, str]):
    """The same answer to everything."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def __missing__(self, prompt: str) -> str:
        return self._text


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([f"{number} + 1?" for number in range(59)], "59 different prompts; expected 60"),
        (["1 + 1?" + " " * number for number in range(80)], "1 different prompts; expected 60"),
    ],
)
def test_too_few_different_prompts_are_refused(tmp_path: Path, rows: list[str], said: str) -> None:
    (tmp_path / "prompts.jsonl").write_text(
        "".join(json.dumps({"prompt": row, "reference": "2"}) + "\n" for row in rows)
    )
    server = RecordedModels()
    server._port = 9
    refused = _run(tmp_path, server, "--grader", "number", "--budget-usd", "1")
    assert isinstance(refused.exception, InputError) and said in str(refused.exception)


def test_a_split_that_leaves_nothing_to_train_on_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    rows = [{"prompt": f"{number} + 1?", "reference": "2", "split": "test"} for number in range(70)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    server = RecordedModels()
    server._port = 9
    refused = _run(tmp_path, server, "--grader", "number", "--budget-usd", "1")
    assert isinstance(refused.exception, InputError) and "0 different prompts are left to train on" in str(
        refused.exception
    )
