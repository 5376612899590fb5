"""The hook of the site (mkdocs.yml): files of the repository outside docs/ take part in it, and links to them hold.

The API reference is read from a copy of the rooms: below the checkout itself lie .venv/ and tests/ as well, and griffe
would read them for minutes.

A page links to a file by its path in the repository, as a code host shows it: `../examples/litellm/own.py`. On the
site, the root's pages and the notebooks are pages, and any other linked file lies below `repository/` as it is. A link
to a file that is not there is a warning, with which a strict build fails.
"""

from __future__ import annotations

import logging
import posixpath
import re
import shutil
import tempfile
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

logger = logging.getLogger("mkdocs.plugins.routelearn")

ROOT = Path(__file__).resolve().parent.parent
#: Where pages that lie outside docs/ stand on the site.
PAGES = {
    "README.md": "overview.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changes.md",
    **{f"examples/{path.name}": f"examples/{path.name}" for path in (ROOT / "examples").glob("*.ipynb")},
}
_MARKDOWN_LINK = re.compile(r"(?<=\]\()(?![a-z]+:)([^)#\s]+)")
_HTML_LINK = re.compile(r'(?<=href=")(?![a-z]+:)([^"#]+)')


def place_of(path: str) -> str:
    """The place on the site of a file of the repository."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return PAGES.get(path, f"repository/{path}")


def path_of(page: str) -> str:
    """The path in the repository of a page of the site."""
    return next((path for path, place in PAGES.items() if place == page), f"docs/{page}")


def linked(page: str, link: str) -> str:
    """The path in the repository of what a page of the site links to."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(path_of(page)), link))


_copy = tempfile.TemporaryDirectory(prefix="routelearn-site-")  # removed when the build ends


@event_priority(100)  # before mkdocstrings takes its settings
def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Copy the sources of the rooms, and let mkdocstrings read the copy."""
    package = Path(_copy.name) / "routelearn"
    for init in ROOT.glob("*/__init__.py"):
        shutil.copytree(init.parent, package / init.parent.name, dirs_exist_ok=True)
    for init in ROOT.glob("__init__.py*"):
        shutil.copy(init, package)
    config.plugins["mkdocstrings"].config.handlers["python"]["paths"] = [_copy.name]
    return config


@event_priority(100)  # before the plugin that renders notebooks
def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages outside docs/, and the files that pages link to."""
    for path, place in PAGES.items():
        if path == place:
            files.append(File(path, str(ROOT), config.site_dir, config.use_directory_urls))
        else:
            files.append(File.generated(config, place, abs_src_path=str(ROOT / path)))
    for page in files.documentation_pages():
        for link in _MARKDOWN_LINK.findall(page.content_string):
            path = linked(page.src_uri, link)
            place = place_of(path)
            if place.startswith("repository/") and (ROOT / path).is_file() and place not in files.src_uris:
                files.append(File.generated(config, place, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let the links of a page lead to the places on the site; mkdocs checks that something is there."""
    here = page.file.src_uri

    def moved(match: re.Match[str]) -> str:
        return posixpath.relpath(place_of(linked(here, match[1])), posixpath.dirname(here))

    return _MARKDOWN_LINK.sub(moved, markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Do the same for a notebook, which comes as HTML; here the check is ours."""
    if not page.file.src_uri.endswith(".ipynb"):
        return html

    def moved(match: re.Match[str]) -> str:
        place = place_of(linked(page.file.src_uri, match[1]))
        target = files.get_file_from_path(place)
        if target is None:
            logger.warning("%s links to %s, which is not on the site", page.file.src_uri, match[1])
            return match[0]
        return target.url_relative_to(page.file)

    return _HTML_LINK.sub(moved, html)
