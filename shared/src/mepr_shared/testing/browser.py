"""A headless Chromium for tests: pages as a person sees them, with what the console says.

Chromium is the system's (Debian: `apt-get install chromium`), driven by Playwright. Where either
is missing, tests skip and say so; `MEPR_CHROMIUM` names another executable.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")


@dataclass
class Tab:
    """A page, and what went wrong on it.

    Attributes:
        page: Playwright's `Page`.
        errors: console errors, uncaught exceptions, refused requests.
        requests: addresses that were asked for, `data:` ones left out.
    """

    page: Any
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def overflow(self) -> int:
        """By how many pixels the page is wider than its window."""
        return self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")


def chromium() -> str | None:
    """The executable, None where there is none."""
    found = (shutil.which(name) for name in NAMES)
    return os.environ.get("MEPR_CHROMIUM") or next(filter(None, found), None)


@contextmanager
def open_browser() -> Iterator[Callable[..., Tab]]:
    """Gives `open_tab(url, width=1280, height=900, dark=False)`."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    executable = chromium()
    if executable is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        # No sandbox: containers that run tests as root have none to offer.
        browser = driver.chromium.launch(executable_path=executable, args=["--no-sandbox"])

        def open_tab(url: str, *, width: int = 1280, height: int = 900, dark: bool = False) -> Tab:
            context = browser.new_context(
                viewport={"width": width, "height": height},
                color_scheme="dark" if dark else "light",
            )
            tab = Tab(context.new_page())
            tab.page.on("pageerror", lambda error: tab.errors.append(str(error)))
            tab.page.on("requestfailed", lambda request: tab.errors.append(request.url))
            tab.page.on(
                "console",
                lambda said: tab.errors.append(said.text) if said.type == "error" else None,
            )
            tab.page.on(
                "request",
                lambda request: (
                    None if request.url.startswith("data:") else tab.requests.append(request.url)
                ),
            )
            tab.page.goto(url)
            return tab

        try:
            yield open_tab
        finally:
            browser.close()
