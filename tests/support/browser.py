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
def opened(page: Path | str, *, width: int = 1200, dark: bool = False) -> Iterator[Any]:
    """Opens a page in headless Chromium; nothing may be fetched from elsewhere and no script may fail.

    Args:
        page: The file, or the address of a server, which may be away for a while.
        width: Of the window, px.
        dark: Whether the user prefers dark pages.

    Yields:
        Playwright's page, loaded.
    """
    executable = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    require(executable, "Chromium (apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        view = browser.new_page(
            viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light"
        )
        errors: list[str] = []
        fetched: list[str] = []
        view.on("pageerror", lambda error: errors.append(str(error)))
        view.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
        view.on("request", lambda request: fetched.append(request.url))
        view.goto(page.as_uri() if isinstance(page, Path) else page)
        yield view
        browser.close()
    away = "Failed to load resource"  # how Chromium tells that a server does not answer
    failed = [error for error in errors if isinstance(page, Path) or not error.startswith(away)]
    assert not failed, failed
    home = ("file:", "data:", "blob:") if isinstance(page, Path) else (page, "data:", "blob:")
    outside = [url[:80] for url in fetched if not url.startswith(home)]
    assert not outside, outside
