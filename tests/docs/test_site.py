"""The site builds without a warning, holds every public name and every plot, and loads nothing from elsewhere."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
ROOMS = sorted(path.stem for path in (ROOT / "docs" / "api").glob("*.md") if path.stem != "index")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_the_api_has_a_page_for_every_room_with_a_list_of_public_names(site: Path) -> None:
    listed = {path.parent.name for path in ROOT.glob("*/__init__.pyi")}
    assert set(ROOMS) == listed
    assert {path.stem for path in (site / "api").glob("*.html")} == {*listed, "index"}


@pytest.mark.parametrize("room", ROOMS)
def test_the_page_of_a_room_describes_every_public_name(site: Path, room: str) -> None:
    page = (site / "api" / f"{room}.html").read_text(encoding="utf-8")
    names = importlib.import_module(f"routelearn.{room}").__all__
    assert [name for name in names if f'id="routelearn.{room}.{name}"' not in page] == []


def test_examples_and_errors_of_docstrings_are_shown_as_such(site: Path) -> None:
    page = (site / "api" / "policies.html").read_text(encoding="utf-8")
    assert "Examples:" in page
    assert "Raises:" in page
    assert "Parameters:" in page
    assert not re.search(r"<blockquote>", page)  # what Markdown makes of ">>>"


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "examples").glob("*.ipynb")))
def test_a_notebook_is_a_page_with_its_plots(site: Path, name: str) -> None:
    page = (site / "examples" / f"{name}.html").read_text(encoding="utf-8")
    assert page.count('src="data:image/png;base64,') == (ROOT / "examples" / f"{name}.ipynb").read_text().count(
        '"image/png"'
    )


def test_the_files_that_pages_link_to_are_on_the_site(site: Path) -> None:
    assert (site / "repository/examples/litellm/own.py").read_bytes() == (ROOT / "examples/litellm/own.py").read_bytes()


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    loads = r'<(?:script|link|img|iframe)\b[^>]*?(?:src|href)="(https?://[^"]+)"'
    pages = [path.read_text(encoding="utf-8") for path in site.rglob("*.html")]
    assert len(pages) > 20
    assert [found for page in pages for found in re.findall(loads, page)] == []


def test_the_index_shows_the_five_lines_of_the_readme() -> None:
    code = re.findall(r"```python\n.*?```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert code[0] in (ROOT / "docs" / "index.md").read_text()
