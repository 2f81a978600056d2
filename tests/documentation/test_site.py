"""The site builds strictly, asks nothing of other hosts, and its search finds what people ask for."""

import functools
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Page

from bench.browser import chromium
from core.methods.registry import METHODS

SOUGHT = {
    "perplexity": "glossary",
    "llama.cpp": "gguf",
    "install kubernetes": "operations",
    "zeros nvidia": "methods/",
    "how much memory": "gpu",
    "chat template": "chat",
    "api key": "reference/",
    "backup restore": "operations",
    "smaller vocabulary": "vocabulary",
    "image classifier": "classifiers",
}
"""What a user types, and a page that must be among the first ten found."""
_SEARCH = ".md-search__input"
_FOUND = ".md-search-result__link"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address(site: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def visitor() -> Iterator[Page]:
    try:
        opening = chromium()
    except FileNotFoundError as missing:
        pytest.skip(str(missing))
    with opening as browser:
        yield browser.new_page()


def test_there_is_a_page_for_every_method(site: Path) -> None:
    for method in METHODS:
        text = (site / "methods" / f"{method}.html").read_text("utf-8")
        for heading in ("The idea", "The formula", "A body to copy", "Options"):
            assert f">{heading}<" in text, (method, heading)


def test_pages_ask_nothing_of_other_hosts_and_the_search_finds_what_people_ask_for(address: str, visitor: Page) -> None:
    asked: set[str] = set()
    visitor.on("request", lambda request: asked.add(request.url))
    for page in ("choose", "methods/frontier", "reference/api", "reference/python", "index"):
        visitor.goto(f"{address}/{page}.html", wait_until="networkidle")
    missed = {}
    for words, wanted in SOUGHT.items():
        for typed in ("", words):
            visitor.fill(_SEARCH, typed)
            visitor.press(_SEARCH, "End")
            visitor.wait_for_selector(_FOUND, state="detached" if not typed else "attached")
        found = visitor.eval_on_selector_all(_FOUND, "links => links.map(link => link.pathname)")
        pages = list(dict.fromkeys(found))[:10]
        if not any(page.startswith(f"/{wanted}") for page in pages):
            missed[words] = pages
    assert not missed
    assert all(url.startswith((f"{address}/", "data:", "blob:")) for url in asked), asked
