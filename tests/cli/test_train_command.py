"""`routelearn train` as a user meets it: what a dry run refuses, and what is said at the end."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from routelearn.cli.main import app
from routelearn.data.sample import write_sample
from routelearn.routers.errors import InputError
from routelearn.routers.loading import load

PAIR = ("--strong", "sim-max", "--weak", "sim-small")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    write_sample(folder, 400, seed=2)
    return folder


def train(recipe: str, files: Path, out: Path, *arguments: object) -> Result:
    data = [] if "--data" in arguments else ["--data", str(files / "performance.jsonl")]
    return CliRunner().invoke(app, ["train", recipe, *data, "--out", str(out), *map(str, arguments)])


def test_train_ends_with_the_pair_the_threshold_the_gain_and_the_next_command(
    files: Path, tiny_encoder: Path, tmp_path: Path
) -> None:
    result = train("mf", files, tmp_path / "router", *PAIR, "--encoder", tiny_encoder, "--path-steps", 3)
    assert result.exit_code == 0, result.output + repr(result.exception)
    *_, pair, threshold, gain, invitation, command = result.stderr.splitlines()
    assert "sim-max" in pair and "sim-small" in pair
    assert f"{load(tmp_path / 'router').threshold:.4f}" in threshold
    assert "held-out queries" in gain
    assert invitation.endswith("type:")
    words = shlex.split(command)
    assert words[:2] == ["routelearn", "evaluate"]
    done = CliRunner().invoke(app, [*words[1:], "--bootstrap", "20"])
    assert done.exit_code == 0, done.output + repr(done.exception)


def test_a_router_that_is_no_better_than_none_ends_with_exit_code_3_unless_kept_anyway(
    files: Path, tiny_encoder: Path, tmp_path: Path
) -> None:
    lines = [json.loads(line) for line in (files / "performance.jsonl").read_text().splitlines()]
    random = np.random.default_rng(0)
    # Without marks every query is held out once, which makes enough outcomes to judge by.
    luck = "\n".join(json.dumps({**line, "score": float(random.integers(2)), "split": None}) for line in lines)
    (tmp_path / "luck.jsonl").write_text(luck)
    arguments = ["--data", tmp_path / "luck.jsonl", *PAIR, "--encoder", tiny_encoder]
    result = train("similarity", files, tmp_path / "router", *arguments)
    assert result.exit_code == 3, result.output + repr(result.exception)
    assert "no better than one model for all queries" in result.stderr and "--keep-anyway" in result.stderr
    assert load(tmp_path / "router").models
    kept = train("similarity", files, tmp_path / "router", *arguments, "--force", "--keep-anyway")
    assert kept.exit_code == 0 and "no better than one model for all queries" in kept.stderr


def test_a_dry_run_says_what_would_be_trained_and_writes_nothing(
    files: Path, tiny_encoder: Path, tmp_path: Path
) -> None:
    result = train("mf", files, tmp_path / "router", *PAIR, "--encoder", tiny_encoder, "--dry-run")
    assert result.exit_code == 0, result.output + repr(result.exception)
    assert "queries to learn from" in result.stderr
    assert "Nothing was written" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("recipe", ["mf", "similarity", "frozen", "bert", "verifier"])
@pytest.mark.parametrize("dry", [(), ("--dry-run",)], ids=["train", "dry run"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--strong", "nobody"), "nobody"),
        (("--strong", "sim-max", "--weak", "sim-max"), "expected two different models"),
        (("--folds", 1), "folds is 1; expected a whole number from 2"),
        (("--max-tokens", 3), "max_tokens is 3"),
        (("--encoder", "/no/such/folder"), "/no/such/folder"),
        (("--data", "/no/such/file.parquet"), "/no/such/file.parquet"),
        (("--out", "{files}"), "not a bundle"),
        (("--config", "/no/such/file.toml"), "no such file"),
        (("--pool", "/no/such/file.json"), "no such file"),
        (("--split", "test"), "no records to learn from"),
    ],
    ids=lambda value: str(value[0]) if isinstance(value, tuple) else "",
)
def test_a_dry_run_refuses_what_training_refuses(
    recipe: str,
    dry: tuple[str, ...],
    arguments: tuple[object, ...],
    message: str,
    files: Path,
    tiny_encoder: Path,
    tiny_bert: Path,
    tmp_path: Path,
) -> None:
    if recipe == "verifier" and arguments[1] == "nobody":
        arguments = ("--weak", "nobody")  # a verifier's strong model need not be in the data
    encoder = tiny_encoder if recipe in {"mf", "similarity"} else tiny_bert
    given = [str(argument).format(files=files) for argument in arguments]
    defaults = [] if "--encoder" in given else ["--encoder", str(encoder)]
    defaults += [] if {"--strong", "--weak"} & set(given) else [*PAIR]
    result = train(recipe, files, tmp_path / "router", *defaults, *given, *dry)
    assert isinstance(result.exception, InputError), result.output
    assert message in str(result.exception)
    assert not (tmp_path / "router").exists()
    if dry:
        assert list(tmp_path.iterdir()) == []


def test_bert_without_epochs_names_the_recipe_that_trains_nothing(files: Path, tmp_path: Path) -> None:
    result = train("bert", files, tmp_path / "router", *PAIR, "--epochs", 0)
    assert isinstance(result.exception, InputError)
    assert "routelearn train frozen" in str(result.exception)


def test_flags_win_over_the_file_of_settings(files: Path, tiny_encoder: Path, tmp_path: Path) -> None:
    settings = tmp_path / "mf.toml"
    settings.write_text(f'encoder = "{tiny_encoder}"\npath_steps = 3\nweak = "sim-nano"\nrank = 4\ntasks = false\n')
    arguments = ("--config", settings, "--strong", "sim-max", "--weak", "sim-small", "--rank", 32, "--tasks")
    result = train("mf", files, tmp_path / "router", *arguments)
    assert result.exit_code == 0, result.output + repr(result.exception)
    config = load(tmp_path / "router").manifest.training["config"]
    # A flag wins even where it says what is the default anyway.
    assert (config["weak"], config["rank"], config["tasks"], config["path_steps"]) == ("sim-small", 32, True, 3)


def test_a_setting_that_there_is_not_is_named(files: Path, tmp_path: Path) -> None:
    (tmp_path / "mf.toml").write_text("ranks = 4\n")
    result = train("mf", files, tmp_path / "router", "--config", tmp_path / "mf.toml", *PAIR)
    assert "unknown settings ['ranks']; expected settings among ['dimensions'" in str(result.exception)
