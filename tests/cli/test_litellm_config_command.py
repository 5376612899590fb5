"""`routelearn litellm-config` and what `routelearn proxy` refuses; test_litellm_guide.py runs both with LiteLLM."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from helpers.cli import run

from routelearn.cli import proxy
from routelearn.cli.proxy import INSTALL

PAIR = ("--strong", "openai/gpt-4o", "--weak", "openai/gpt-4o-mini")


def variables(config: Path) -> dict[str, str]:
    return dict(yaml.safe_load(config.read_text())["environment_variables"])


def test_it_writes_a_configuration_for_the_pair_of_a_bundle_and_says_what_comes_next(
    bundle: Path, tmp_path: Path
) -> None:
    done = run("litellm-config", bundle, *PAIR, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    written = variables(tmp_path / "config.yaml")
    assert written["ROUTELEARN_ROUTER"] == str(bundle)
    assert written["ROUTELEARN_MODELS"] == "sim-max=strong,sim-small=weak"
    assert "auto chooses between openai/gpt-4o (strong) and openai/gpt-4o-mini (weak)\n" in done.stderr
    assert "the router knows them as sim-max and sim-small" in done.stderr
    assert "export OPENAI_API_KEY=... LITELLM_MASTER_KEY=sk-...\n" in done.stderr
    assert "routelearn proxy --config config.yaml\n" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_a_relative_bundle_is_named_by_its_whole_path_and_a_link_stays_a_link(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(bundle)
    assert run("litellm-config", "current", *PAIR, cwd=tmp_path).returncode == 0
    assert variables(tmp_path / "config.yaml")["ROUTELEARN_ROUTER"] == str(tmp_path / "current")


def test_the_general_router_compares_the_models_by_their_own_names(tmp_path: Path) -> None:
    done = run("litellm-config", "general", *PAIR, "-o", "a/folder", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    written = variables(tmp_path / "a" / "folder" / "config.yaml")
    assert (written["ROUTELEARN_ROUTER"], written["ROUTELEARN_STRONG"]) == ("general", "gpt-4o")
    twins = ("--strong", "openai/gpt-4o", "--weak", "azure/gpt-4o", "-o", "twins.yaml")
    assert run("litellm-config", "general", *twins, cwd=tmp_path).returncode == 0
    assert variables(tmp_path / "twins.yaml")["ROUTELEARN_WEAK"] == "azure/gpt-4o"


def test_a_configuration_is_replaced_only_when_asked_to(bundle: Path, tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("mine")
    refused = run("litellm-config", bundle, *PAIR, "-o", config)
    assert (refused.returncode, config.read_text()) == (2, "mine")
    assert "is there already" in refused.stderr
    assert run("litellm-config", bundle, *PAIR, "-o", config, "--force").returncode == 0
    assert variables(config)["ROUTELEARN_STRONG"] == "sim-max"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--strong", "openai/gpt-4o"], "--strong or --weak is missing"),
        (["--strong", "gpt-4o", "--weak", "openai/gpt-4o-mini"], "'gpt-4o' has no provider"),
        (["--strong", "openai/sim-small", "--weak", "openai/sim-max"], "expected them the other way round"),
        (["--strong", "openai/a", "--weak", "openai/sim-max"], "expected them the other way round"),
        ([*PAIR, "-o", "a-file/below"], "a-file/below is not a folder"),
        ([*PAIR, "-o", "a-file"], "a-file is not a folder"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_written(
    bundle: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    (tmp_path / "a-file").touch()
    done = run("litellm-config", bundle, *options, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a-file"]


def test_a_bundle_that_does_not_load_is_refused(tmp_path: Path) -> None:
    done = run("litellm-config", tmp_path / "nothing", *PAIR, cwd=tmp_path)
    assert done.returncode == 2
    assert "no bundle at" in done.stderr


# ---- routelearn proxy, as far as it needs no LiteLLM


def test_without_litellm_the_line_that_installs_it_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "find_spec", lambda module: None if module == "litellm" else module)
    done = run("proxy", "general", *PAIR, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == f"error: litellm is not installed. Install LiteLLM's proxy with: {INSTALL}\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "expected a ROUTER with --strong and --weak, or --config FILE"),
        (["general", "--config", "config.yaml"], "expected a ROUTER with --strong and --weak, or --config FILE"),
        (["--config", "config.yaml", *PAIR], "--strong, --weak: no effect with --config"),
        (["--config", "nothing.yaml"], "nothing.yaml is not a file"),
        (["--config", "broken.yaml"], "broken.yaml is no YAML"),
        (["general", "--strong", "openai/a"], "--strong or --weak is missing"),
        (["--config", "config.yaml", "--host", "0.0.0.0"], "set LITELLM_MASTER_KEY to the key"),
        (["--config", "config.yaml", "--host", "192.0.2.1"], "cannot listen at 192.0.2.1"),
    ],
)
def test_the_proxy_refuses_what_does_not_fit_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str
) -> None:
    monkeypatch.setattr(proxy, "find_spec", lambda module: module)
    monkeypatch.setattr(proxy, "version", lambda _: "1.110.2")
    monkeypatch.delenv("LITELLM_MASTER_KEY", raising=False)
    (tmp_path / "config.yaml").write_text("general_settings: {master_key: os.environ/LITELLM_MASTER_KEY}\n")
    (tmp_path / "broken.yaml").write_text("a: [")
    done = run("proxy", *options, "--port", "0", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr


def test_an_older_litellm_has_no_seat_for_the_classifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "find_spec", lambda module: module)
    monkeypatch.setattr(proxy, "version", lambda _: "1.98.3")
    done = run("proxy", "general", *PAIR, cwd=tmp_path)
    assert done.returncode == 2
    assert "LiteLLM 1.98.3 has no seat for a classifier; expected 1.99 or newer" in done.stderr


def test_a_key_of_a_model_that_is_not_set_is_named_before_the_proxy_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = SimpleNamespace(run_server=SimpleNamespace(main=lambda **_: None))
    monkeypatch.setattr(proxy, "find_spec", lambda module: module)
    monkeypatch.setattr(proxy, "version", lambda _: "1.110.2")
    monkeypatch.setattr(proxy, "require", lambda module, _: yaml if module == "yaml" else started)
    monkeypatch.setattr(proxy.signal, "signal", lambda *_: None)
    monkeypatch.setattr(proxy, "ENVIRONMENT", {})
    for name, value in {"LITELLM_MASTER_KEY": "sk-1", "STRONG_KEY": "sk-2", "WEAK_KEY": ""}.items():
        monkeypatch.setenv(name, value)
    keys = ("--strong-key-env", "STRONG_KEY", "--weak-key-env", "WEAK_KEY")
    done = run("proxy", "general", *PAIR, *keys, "--port", "0", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "WEAK_KEY is not set: calls of the models that need it will fail\n")
