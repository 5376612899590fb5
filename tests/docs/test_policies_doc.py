"""The Python blocks of docs/policies.md run, and so do its commands."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.cli import run

from routelearn.data.sample import Sample, generate_sample
from routelearn.data.writers import write_records

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "policies.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = re.findall(r"^routelearn .*$", "".join(re.findall(r"```console\n(.*?)```", TEXT, re.DOTALL)), re.MULTILINE)


@pytest.mark.parametrize("code", PYTHON, ids=range(len(PYTHON)))
def test_the_python_blocks_run(code: str, bundle: Path, bert_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "router")
    shutil.copytree(bert_bundle, tmp_path / "bert")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_the_commands_run_in_order(bundle: Path, sample: Sample, tmp_path: Path) -> None:
    """On the synthetic sample under the document's file names, with a loss that its size allows."""
    shutil.copytree(bundle, tmp_path / "router")
    fresh = generate_sample(800, seed=12)
    write_records(fresh.performances, tmp_path / "labelled.parquet")
    write_records(sample.performances, tmp_path / "battles.parquet")
    (tmp_path / "my_queries.txt").write_text("\n".join(f"Prove lemma {number}." for number in range(200)) + "\n")
    prices = {"sim-max": 10.0, "sim-small": 0.5}
    pool = [{"name": name, "input_price": price, "output_price": 3 * price} for name, price in prices.items()]
    (tmp_path / "prices.json").write_text(json.dumps(pool))
    assert len(COMMANDS) == 4
    for command in COMMANDS:
        arguments = shlex.split(command.replace("--max-quality-loss 0.02", "--max-quality-loss 0.15"))[1:]
        arguments += ["--drop-leaks"] if "--train" in arguments else []
        done = run(*arguments, cwd=tmp_path)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    assert "loss at most 0.15" in " ".join(done.stdout.split())
    assert (tmp_path / "calibrated" / "router.json").is_file()
    assert (tmp_path / "report" / "calibration.html").is_file()
