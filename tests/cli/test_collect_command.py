"""`routelearn collect`: what it prints, when it stops, and that it goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.collecting import PRICES, write_models, write_prompts
from helpers.flaky_models import FlakyModels
from typer.testing import CliRunner, Result

from routelearn.cli.input_files import read_pool
from routelearn.cli.main import app
from routelearn.routers.errors import InferenceError, InputError


def _run(folder: Path, url: str, *options: str, count: int = 30, **models: object) -> Result:
    write_prompts(folder / "prompts.jsonl", count)
    write_models(folder / "models.toml", url, **models)
    files = [str(folder / "prompts.jsonl"), "--models", str(folder / "models.toml"), "--out", str(folder / "a.jsonl")]
    return CliRunner().invoke(app, ["collect", *files, *options])


def _rows(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "a.jsonl").read_text().splitlines()]


pytestmark = pytest.mark.slow


def test_a_pilot_prices_the_rest_and_the_next_run_asks_only_what_is_left(tmp_path: Path) -> None:
    with FlakyModels() as server:
        dry = _run(tmp_path, server.url, "--dry-run")
        assert dry.exit_code == 0, dry.output
        assert "an assumption: 300 tokens an answer" in dry.stdout
        assert not server.answered and not (tmp_path / "a.jsonl").exists()
        pilot = _run(tmp_path, server.url, "--pilot", "10")
        assert pilot.exit_code == 0, pilot.output
        assert server.counts.calls == 30
        assert "10 answers" in pilot.stdout and len(_rows(tmp_path)) == 30
        whole = _run(tmp_path, server.url)
        assert "wrote 90 answers" in whole.stderr
        assert server.counts.calls == 90 and set(server.answered.values()) == {1}


def test_a_budget_ends_the_job_before_the_call_that_would_exceed_it(tmp_path: Path) -> None:
    with FlakyModels() as server:
        done = _run(tmp_path, server.url, "--budget-usd", "0.02")
        assert done.exit_code == 0, done.output
        assert "stopped: the budget of 0.02 USD" in done.stderr
        spent = sum(float(str(row["cost_usd"])) for row in _rows(tmp_path))
        assert 0 < spent < 0.02 + 48 * 0.007
        assert server.counts.calls == len(_rows(tmp_path)) < 90


def test_a_budget_without_prices_is_refused_before_any_call(tmp_path: Path) -> None:
    with FlakyModels() as server:
        write_prompts(tmp_path / "p.jsonl", 3)
        (tmp_path / "m.toml").write_text(f'[[models]]\nname = "free"\nbase_url = "{server.url}"\napi_key_env = ""\n')
        files = [str(tmp_path / "p.jsonl"), "--models", str(tmp_path / "m.toml"), "--out", str(tmp_path / "a.jsonl")]
        refused = CliRunner().invoke(app, ["collect", *files, "--budget-usd", "1"])
        assert isinstance(refused.exception, InputError) and "no price is known for ['free']" in str(refused.exception)
        assert server.counts.calls == 0


@pytest.mark.parametrize(("status", "said"), [(401, "refuses every call"), (404, "refuses every call")])
def test_a_wrong_key_or_model_ends_the_job_at_once(tmp_path: Path, status: int, said: str) -> None:
    def refuse(prompt: str) -> str:
        raise _RefusalError(status)

    with FlakyModels(answer=refuse, refusals=True) as server:
        done = _run(tmp_path, server.url)
        assert isinstance(done.exception, InputError) and said in str(done.exception)
        assert server.counts.calls <= 3 * 16


def test_a_question_that_the_service_refuses_is_an_answer_that_failed(tmp_path: Path) -> None:
    def refuse(prompt: str) -> str:
        if prompt.startswith("7:"):
            raise _RefusalError(400)
        return "fine"

    with FlakyModels(answer=refuse, refusals=True) as server:
        done = _run(tmp_path, server.url)
        assert done.exit_code == 0, done.output
        assert "1 answers are 'failed'" in done.stderr
        failed = [row for row in _rows(tmp_path) if row["status"] == "failed"]
        assert len(failed) == len(PRICES) and all("status 400" in str(row["error"]) for row in failed)


def test_a_service_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = _run(tmp_path, "http://127.0.0.1:9/v1", count=1)
    assert isinstance(done.exception, (InputError, InferenceError)) and "cannot be reached" in str(done.exception)


def test_another_model_than_was_asked_is_told(tmp_path: Path) -> None:
    with FlakyModels(served_model="other") as server:
        done = _run(tmp_path, server.url, count=3)
        assert "warning: large was asked, but other answered" in done.stderr


def test_an_output_in_whose_place_something_stands_is_refused_before_any_call(tmp_path: Path) -> None:
    with FlakyModels() as server:
        write_models(tmp_path / "models.toml", server.url)
        write_prompts(tmp_path / "prompts.jsonl", 3)
        (tmp_path / "other.jsonl").write_text("kept")
        (tmp_path / "folder.jsonl").mkdir()
        for out, said in (
            ("prompts.jsonl", "is what the command reads"),
            ("other.jsonl", "did not begin it"),
            ("folder.jsonl", "is a folder"),
            ("none/a.jsonl", "is not a folder"),
            ("a.txt", "ends in .parquet"),
        ):
            arguments = [str(tmp_path / "prompts.jsonl"), "--models", str(tmp_path / "models.toml")]
            for more in ([], ["--dry-run"]):
                refused = CliRunner().invoke(app, ["collect", *arguments, "--out", str(tmp_path / out), *more])
                assert isinstance(refused.exception, InputError) and said in str(refused.exception)
        assert server.counts.calls == 0
        assert (tmp_path / "other.jsonl").read_text() == "kept"


def test_models_toml_is_a_pool_with_prices(tmp_path: Path) -> None:
    pool = read_pool(write_models(tmp_path / "models.toml", "http://localhost/v1"))
    assert {model.name: (model.input_price, model.output_price) for model in pool} == {
        name: (read, written) for name, (read, _, written) in PRICES.items()
    }


class _RefusalError(RuntimeError):
    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status
