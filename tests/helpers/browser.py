"""A real browser for the tests of pages; they are skipped where there is none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1100,900",
)
needs_browser = pytest.mark.skipif(
    BROWSER is None or DRIVER is None, reason="no browser: apt-get install chromium chromium-driver"
)


class Page:
    """The page as a reader sees it."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def text(self, name: str) -> str:
        from selenium.common.exceptions import StaleElementReferenceException

        while True:
            try:
                return str(self.driver.find_element("id", name).text)
            except StaleElementReferenceException:  # the page was drawn anew between the two steps
                continue

    def run(self, script: str) -> Any:
        return self.driver.execute_script(script)

    def state(self) -> str:
        return self.text("state")

    def complaints(self) -> list[str]:
        """What the browser's console says of the page, but for requests that fail on purpose."""
        return [
            one["message"] for one in self.driver.get_log("browser") if "Failed to load resource" not in one["message"]
        ]


@contextmanager
def browser(folder: Path) -> Iterator[Any]:
    """A browser that keeps its files in a folder."""
    webdriver = pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for option in (*OPTIONS, f"--user-data-dir={folder}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    running = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield running
    running.quit()
