"""A real browser, and the portal as somebody who signed in."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from axe_playwright_python.base import AxeResults
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, expect
from sqlalchemy.orm import Session, sessionmaker

from bench.browser import chromium
from core.storage import Store
from tests.portal.running_job import Running

DESKTOP = (1280, 800)
PHONE = (390, 844)
POLLED_WITHIN = 5_000
"""Milliseconds of a page's own clock, once it is installed, in which every page that asks for news has asked."""
_RUN_AXE = "options => axe.run(options).then(({violations}) => ({violations}))"
"""Only that is asked for: what `Axe.run` brings besides takes longer than finding it."""
_AXE = Axe().axe_script
_COLOURS = ["color-contrast", "link-in-text-block"]
expect.set_options(timeout=60_000)


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, without a window. Not for the whole run: its event loop is in the way of other tests'."""
    try:
        opening = chromium()
    except FileNotFoundError as missing:
        pytest.skip(str(missing))
    with opening as opened:
        yield opened


@pytest.fixture
def context(browser: Browser, live_api: httpx.Client) -> Iterator[BrowserContext]:
    """A browser's profile that knows the portal's address, and fails a test whose page breaks the content policy or
    throws.
    """
    width, height = DESKTOP
    opened = browser.new_context(base_url=str(live_api.base_url), viewport={"width": width, "height": height})
    opened.set_default_timeout(60_000)
    faults: list[str] = []
    opened.on("weberror", lambda error: faults.append(str(error.error)))
    opened.on(
        "console",
        lambda said: faults.append(said.text) if "Content Security Policy" in said.text else None,
    )
    yield opened
    opened.close()
    assert not faults, faults


@pytest.fixture
def visitor(context: BrowserContext) -> Page:
    """A page of somebody who did not sign in."""
    return context.new_page()


@pytest.fixture
def portal(visitor: Page, admin_key: str) -> Page:
    """A page that went nowhere yet, of an admin of the team who signed in."""
    hand_in_key(visitor, admin_key)
    return visitor


@pytest.fixture
def submitted(
    live_api: httpx.Client, job_body: dict[str, Any], sessions: sessionmaker[Session], store: Store
) -> Running:
    """A queued job."""
    job = live_api.post("/v1/jobs", json=job_body).raise_for_status().json()["id"]
    return Running(sessions, store, job)


def hand_in_key(page: Page, key: str) -> None:
    """Sign in without looking at the page for that."""
    answer = page.context.request.post("/portal/sign-in", form={"key": key}, max_redirects=0)
    assert answer.status == 303, answer.text()


def sign_in(page: Page, key: str) -> None:
    """Sign in and look at the jobs."""
    hand_in_key(page, key)
    page.goto("/portal/jobs")


def require_accessible(page: Page) -> None:
    """Neither axe-core nor the page's own width finds fault with the page as it is, nor axe-core with its colours in
    light and in dark.
    """
    if not page.evaluate("'axe' in window"):
        page.evaluate(_AXE)
    found = {"light": AxeResults(page.evaluate(_RUN_AXE, {"resultTypes": ["violations"]}))}
    page.emulate_media(color_scheme="dark")
    found["dark"] = AxeResults(page.evaluate(_RUN_AXE, {"resultTypes": ["violations"], "runOnly": _COLOURS}))
    for what, results in found.items():
        assert results.violations_count == 0, f"{page.url} ({what}):\n{results.generate_report()}"
    page.emulate_media(color_scheme="light")
    shown = page.viewport_size
    assert shown is not None
    width, height = PHONE
    page.set_viewport_size({"width": width, "height": height})
    assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{page.url} is wider than a phone"
    page.set_viewport_size(shown)
