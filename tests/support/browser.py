"""A real browser for the pages that the product writes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.requirements import require

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def opened(page: Path) -> Iterator[Any]:
    """Opens a page in headless Chromium; nothing may be fetched and no script may fail.

    Args:
        page: The file.

    Yields:
        Playwright's page, loaded.
    """
    executable = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    require(executable, "Chromium (apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        view = browser.new_page(viewport={"width": 1200, "height": 900})
        errors: list[str] = []
        fetched: list[str] = []
        view.on("pageerror", lambda error: errors.append(str(error)))
        view.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
        view.on("request", lambda request: fetched.append(request.url))
        view.goto(page.as_uri())
        yield view
        browser.close()
    assert not errors, errors
    outside = [url[:80] for url in fetched if not url.startswith(("file:", "data:", "blob:"))]
    assert not outside, outside
