"""The Python blocks of README, docs/cascade.md and docs/monitoring.md run, and their commands exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.cli import run
from helpers.judges import judge_by, longer
from helpers.recorded_models import RecordedModels

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
CONSOLE = "".join(re.findall(r"```console\n(.*?)```", TEXT, re.DOTALL))
CASCADE = (ROOT / "docs" / "cascade.md").read_text()
COMMANDS = re.findall(r"^routelearn .*$", CONSOLE, re.MULTILINE)


def trains(code: str) -> bool:
    """A block that trains takes seconds."""
    return "train_" in code


@pytest.mark.parametrize(
    "code",
    [pytest.param(code, marks=pytest.mark.slow if trains(code) else ()) for code in PYTHON],
    ids=range(len(PYTHON)),
)
def test_the_python_blocks_run(code: str, bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "router")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_the_shell_commands_run_in_order(tiny_encoder: Path, tiny_bert: Path, tmp_path: Path) -> None:
    """On the synthetic sample under the README's file names, with the sample's models for the README's.

    Training a verifier, which the README names, is tried as docs/cascade.md writes it.
    """
    from routelearn.data.sample import generate_sample
    from routelearn.data.writers import write_records

    sample = generate_sample(500, seed=6)
    write_records([r for r in sample.performances if r.split != "test"], tmp_path / "battles.parquet")
    write_records([r for r in sample.performances if r.split != "test"], tmp_path / "answers.parquet")
    test = [r for r in sample.performances if r.split == "test"]
    write_records(test, tmp_path / "test.parquet")
    import pandas as pd

    pd.DataFrame({"prompt": [r.query for r in test if isinstance(r.query, str)]}).to_parquet(
        tmp_path / "queries.parquet"
    )
    assert len(COMMANDS) == 5
    (verifier_command,) = re.findall(r"^routelearn train verifier .*$", CASCADE, re.MULTILINE)
    for command in [*(one for one in COMMANDS if "build" not in one), verifier_command]:
        arguments = command.replace("gpt-4o-mini", "sim-small").replace("gpt-4o", "sim-max").split()[1:]
        if arguments[0] == "train":
            verifier = arguments[1] == "verifier"
            arguments += ["--encoder", str(tiny_bert if verifier else tiny_encoder)]
            arguments += ["--max-tokens", "96", "--query-tokens", "32"] if verifier else []
        done = run(*arguments, cwd=tmp_path)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    assert {"score", "model", "source"} <= set(pd.read_parquet(tmp_path / "scored.parquet").columns)


@pytest.mark.slow
def test_the_build_command_runs(tmp_path: Path) -> None:
    """With local models in the place of the README's: the strong one writes more, and the judge likes that."""
    (command,) = (one for one in COMMANDS if "build" in one)

    def answer(model: str, prompt: str) -> str:
        if "===== " in prompt:
            return judge_by(longer)(prompt)
        return f"{prompt} has this answer." * (1 if model == "gpt-5-mini" and len(prompt) % 3 else 2)

    class Models(RecordedModels):
        def reply(self, model: str, prompt: str) -> str:
            return answer(model, prompt)

    prompts = [{"prompt": f"Question {number} of {number % 17} kinds{'?' * (number % 3)}"} for number in range(90)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(prompt) + "\n" for prompt in prompts))
    with Models() as server:
        server.write_models(tmp_path / "models.toml", {"gpt-5": (1.25, 10.0), "gpt-5-mini": (0.25, 2.0)})
        done = run(*command.split()[1:], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.match("deploy|do not deploy|label more", done.stdout)
    assert (tmp_path / "router" / "router.json").is_file()


@pytest.mark.parametrize(
    "code", re.findall(r"```python\n(.*?)```", CASCADE, re.DOTALL), ids=range(CASCADE.count("```python"))
)
def test_the_cascade_recipe_runs(code: str, bundle: Path, verifier_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "router")
    shutil.copytree(verifier_bundle, tmp_path / "verifier")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


MONITORING = (ROOT / "docs" / "monitoring.md").read_text()


def test_the_recipe_of_the_route_monitor_runs(bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "router")
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", MONITORING, re.DOTALL) if "RouteMonitor" in block]
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "unknown 2"


def test_the_two_commands_are_targets_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in ("demo", "test"):
        assert f"make {target}" in TEXT
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes from the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_linked_files_and_headings_are_there(page: Path) -> None:
    for target, heading in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", page.read_text()):
        linked = page.parent / target if target else page
        assert linked.is_file(), f"{page.name} links to {target}"
        assert not heading or heading in anchors(linked), f"{page.name} links to {target}#{heading}"
