"""What others named (models, files, columns, tasks) is text, and does nothing to a terminal or a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.cli import run
from hypothesis import given
from hypothesis import strategies as st
from rich.progress import Progress
from rich.table import Table

from routelearn.cli.terminal import Console, LogFormatter, shown
from routelearn.data.csv_cells import guarded, unguarded
from routelearn.data.queries import read_queries
from routelearn.data.readers import read_records
from routelearn.data.records import PerformanceRecord
from routelearn.data.sample import generate_sample
from routelearn.data.writers import write_records
from routelearn.routers.bundle import MANIFEST, read_bundle, save_bundle

ESCAPES = "\x1b]0;owned\x07\x1b[2J\r\x9b31m\u202e"
MARKUP = "[/nope] [bold]loud[/bold] :smile:"
NAMES = [f"model {ESCAPES}", MARKUP, "a$b_{$\\frac"]


@pytest.fixture(scope="module")
def performance(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records of the sample."""
    path = tmp_path_factory.mktemp("sample") / "performance.jsonl"
    return write_records(generate_sample(300, seed=2).performances, path)


def obeyed(text: str) -> set[str]:
    return {character for character in text if not character.isprintable() and character not in "\n\t"}


@given(st.text(ESCAPES + "\x00\x7f\u2028\u2066\ud800\n\ta[é"))
def test_nothing_that_is_shown_is_obeyed(text: str) -> None:
    assert not obeyed(shown(text))
    assert shown(shown(text)) == shown(text)
    shown(text).encode()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_nothing_is_redrawn_in_a_log_although_colours_are_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    file = io.StringIO()
    console = Console(file=file)
    with console.status("reading") as status:
        status.update("reading 100 rows")
    assert not file.getvalue() and not console.redraws


def test_lines_tables_and_spinners_show_names_as_they_are() -> None:
    file = Terminal()
    console = Console(file=file, force_terminal=True, width=200, color_system=None)
    table = Table(title=NAMES[0], title_justify="left")
    table.add_column(MARKUP)
    table.add_row(NAMES[0])
    table.add_row(MARKUP)
    console.print(table)
    console.print(f"wrote {NAMES[0]}")
    with console.status(f"reading {MARKUP}") as status:
        status.update(f"reading {NAMES[0]}")
    with Progress(console=console, transient=True) as bar:
        bar.add_task("scoring", total=1)
    text = file.getvalue()
    assert text.count(MARKUP) >= 2 and "loud" in text
    assert text.count("model \\x1b]0;owned\\x07\\x1b[2J") >= 3 and "reading" in text
    assert "\x07" not in text and "\x1b]" not in text and "\u202e" not in text


def test_log_lines_do_nothing_to_a_terminal() -> None:
    record = logging.LogRecord("routelearn", logging.INFO, "", 0, "model %s", (ESCAPES,), None)
    assert not obeyed(LogFormatter("%(message)s").format(record))


@pytest.mark.parametrize("name", NAMES)
def test_names_of_a_bundle_are_text_in_every_command(bundle: Path, tmp_path: Path, name: str) -> None:
    manifest, contents = read_bundle(bundle)
    pool = tuple(replace(model, name=name) if model.name == manifest.strong else model for model in manifest.pool)
    contents = {file: data for file, data in contents.items() if file != MANIFEST}
    hostile = save_bundle(tmp_path / "b", replace(manifest, pool=pool, strong=name), contents)
    data = tmp_path / "data.jsonl"
    records = [
        PerformanceRecord(f"{ESCAPES if not i else ''} {i} {MARKUP}", model, float(i % 2 == (model == name)), task=name)
        for i in range(60)
        for model in (name, manifest.weak)
    ]
    write_records(records, data)
    report = tmp_path / "report"
    for arguments in (
        ("inspect", hostile),
        ("score", hostile, data, "--prefix", "new_", "-o", tmp_path / "scored.csv"),
        ("data", "validate", data),
        ("evaluate", hostile, "--data", data, "--no-leak-check", "--bootstrap", 5, "-o", report),
        ("calibrate", hostile, "--data", data, "--strong-share", 0.3, "--report", report),
        ("evaluate", hostile, "--data", data, "--train", data),  # fails, and shows a prompt
    ):
        done = run(*arguments)
        assert done.returncode in {0, 2} and "Traceback" not in done.stderr, done.stderr
        assert done.returncode == 0 or "stand in the training data" in done.stderr, done.stderr
        assert not obeyed(done.stdout + done.stderr)
    assert run("route", hostile, "Why?").returncode == 0
    for page in ("report.html", "calibration.html"):
        assert "<bold>" not in (report / page).read_text()


def test_markup_in_a_name_is_text_in_a_report(bundle: Path, performance: Path, tmp_path: Path) -> None:
    evil = tmp_path / "<img src=x onerror=alert(1)> $x_{$"
    shutil.copytree(bundle, evil)
    done = run("evaluate", evil, "--data", performance, "--no-leak-check", "--bootstrap", 5, "-o", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "report" / "report.html").read_text()
    assert "<img" not in page and "&lt;img" in page


FORMULAS = [
    "=HYPERLINK(1)",
    "+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(1)",
    "\t=1",
    "\r=1",
    "'=1",
    "''-x",
    "＝1",
    "- a list item",
]
PLAIN = ["-0.5", "+3", "1e-5", "-.5e+3", "", "a=b", "'quoted'", "why?", "5 - 3"]


@pytest.mark.parametrize("text", [*FORMULAS, *PLAIN])
def test_a_formula_is_guarded_and_a_number_is_not(text: str) -> None:
    assert (guarded(text) != text) == (text in FORMULAS)
    assert guarded(-0.5) == -0.5


@given(st.text("'=+-@\t\r19.e a＝"))
def test_what_is_guarded_is_read_again(text: str) -> None:
    assert unguarded(guarded(text)) == text
    assert guarded(text)[:1] not in {"=", "@", "\t", "\r"}


def test_a_scored_csv_file_is_safe_and_gives_the_same_queries(bundle: Path, tmp_path: Path) -> None:
    queries = [text for text in [*FORMULAS, *PLAIN] if text]
    source = tmp_path / "q.jsonl"
    source.write_text("".join(json.dumps({"prompt": text, "=id": -0.5}) + "\n" for text in queries))
    for raw in ((), ("--raw",)):
        out = tmp_path / f"scored{len(raw)}.csv"
        assert run("score", bundle, source, "-o", out, *raw).returncode == 0
        with out.open(newline="") as file:
            header, *rows = csv.reader(file)
        assert header[1] == ("=id" if raw else "'=id")
        assert [row[0] for row in rows] == [text if raw else guarded(text) for text in queries]
        assert {row[1] for row in rows} == {"-0.5"}
    assert read_queries([str(tmp_path / "scored0.csv")]) == queries
    again = tmp_path / "again.csv"
    assert run("score", bundle, tmp_path / "scored0.csv", "--prefix", "second_", "-o", again).returncode == 0
    assert read_queries([str(again)]) == queries


def test_converted_records_are_safe_and_the_same(tmp_path: Path) -> None:
    records = [PerformanceRecord(text, "=model", 0.5, response=text) for text in FORMULAS]
    write_records(records, tmp_path / "r.jsonl")
    assert run("data", "convert", tmp_path / "r.jsonl", tmp_path / "r.csv").returncode == 0
    assert read_records(tmp_path / "r.csv").records == records
    assert run("data", "convert", tmp_path / "r.jsonl", tmp_path / "raw.csv", "--raw").returncode == 0
    assert "\n=HYPERLINK" in (tmp_path / "raw.csv").read_text()


def test_raw_is_refused_where_it_has_no_effect(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "q.txt").write_text("Why?\n")
    done = run("score", bundle, tmp_path / "q.txt", "-o", tmp_path / "out.parquet", "--raw")
    assert (done.returncode, ".csv" in done.stderr) == (2, True)
