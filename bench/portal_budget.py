"""Weight of the portal's pages, and when they can be used: `python -m bench.portal_budget [--url URL]`.

Of a running service, with an empty cache and a processor slowed down four times: the bytes of everything a page brings
(as gzip sends them), and the milliseconds until all of its scripts have run. Ends with 1 where a page is over its
budget. Where the machine has other work, the milliseconds are worth nothing.
"""

import argparse
import gzip
import sys
from collections.abc import Sequence
from pathlib import Path

import httpx
from playwright.sync_api import Browser, Response

from bench.browser import chromium
from bench.page import table
from bench.portal_pages import pages

MOST_BYTES = 150_000
MOST_MILLISECONDS = 1000
SLOWDOWN = 4
_REPEATS = 3
_INTERACTIVE = "performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"


def weigh(browser: Browser, url: str, key: str, address: str) -> tuple[int, float]:
    """Return the bytes of a page with all it brings, and the milliseconds until it can be used (the best of some)."""
    loads = [_load(browser, url, key, address) for _ in range(_REPEATS)]
    return max(weight for weight, _ in loads), min(milliseconds for _, milliseconds in loads)


def _load(browser: Browser, url: str, key: str, address: str) -> tuple[int, float]:
    """Load a page as somebody does who never came before."""
    context = browser.new_context(base_url=url)
    context.request.post("/portal/sign-in", form={"key": key}, max_redirects=0)
    page = context.new_page()
    context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": SLOWDOWN})
    came: list[Response] = []
    page.on("response", lambda response: came.append(response))
    page.goto(address, wait_until="load")
    milliseconds = float(page.evaluate(_INTERACTIVE))
    weight = sum(len(gzip.compress(each.body())) for each in came if each.status == 200)
    context.close()
    return weight, milliseconds


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.portal_budget", description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--key-file", type=Path, default=Path(".secateur/api-key"))
    options = parser.parse_args(arguments)
    key = options.key_file.read_text().strip()
    rows, is_over = [], False
    with chromium() as browser, httpx.Client(base_url=options.url, headers={"Authorization": f"Bearer {key}"}) as rest:
        for name, address in pages(rest):
            weight, milliseconds = weigh(browser, options.url, key, address)
            is_over = is_over or weight > MOST_BYTES or milliseconds > MOST_MILLISECONDS
            rows.append([name, f"{weight / 1000:.0f} kB", f"{milliseconds:.0f} ms"])
    print(table(["page", "compressed", f"interactive, processor {SLOWDOWN} × slower"], rows, text_columns=1))
    return int(is_over)


if __name__ == "__main__":
    sys.exit(main())
