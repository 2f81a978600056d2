"""Debian's Chromium, for what looks at the portal."""

import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from playwright.sync_api import Browser, sync_playwright

_NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
"""The shell first: the same engine without the browser around it, a quarter of the work for a page."""
_OPTIONS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")


def chromium() -> AbstractContextManager[Browser]:
    """Without a window. Raises FileNotFoundError where it is not installed."""
    found = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if found is None:
        raise FileNotFoundError("Chromium is not installed: apt-get install chromium-headless-shell")
    return _running(found)


@contextmanager
def _running(executable: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(_OPTIONS))
        yield browser
        browser.close()
