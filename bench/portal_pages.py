"""Pictures of the portal's pages: `python -m bench.portal_pages [--url URL] [--key-file FILE] [--write docs/portal]`.

Of a running service with some jobs in it; each page at the width of a phone and of a desk, the latter in dark too. With
`--budget` no picture is taken. What each page weighs is printed, with an empty cache and a processor slowed down four
times: the bytes of everything it brings (as gzip sends them), and the milliseconds until all of its scripts have run;
the exit status is 1 where a page is over its budget. Where the machine has other work, the milliseconds are worth
nothing.
"""

import argparse
import gzip
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
from PIL import Image
from playwright.sync_api import Browser, Page, Response

from bench.browser import chromium
from bench.page import table, write_section

WIDTHS = {"phone": 390, "desktop": 1280}
_COLOURS = 64
"""Of a picture: pages have few, and pictures of them lie in the repository."""
MOST_BYTES = 150_000
MOST_MILLISECONDS = 1000
SLOWDOWN = 4
_REPEATS = 3
_INTERACTIVE = "performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"


def pages(rest: httpx.Client) -> Iterator[tuple[str, str]]:
    """Name and address of every page there is something to see on."""
    yield "jobs", "/portal/jobs"
    jobs = rest.get("/v1/jobs", params={"limit": 200}).raise_for_status().json()["data"]
    models = rest.get("/v1/models").raise_for_status().json()["data"]
    datasets = rest.get("/v1/datasets").raise_for_status().json()["data"]
    if models:
        yield "new-job", f"/portal/new?model={models[0]['name']}"
        yield "new-job-full", f"/portal/new/full?model={models[0]['name']}"
        yield "model", f"/portal/models/{models[0]['name']}"
    if datasets:
        yield "dataset", f"/portal/datasets/{datasets[0]['name']}"
    for status in ("queued", "running", "succeeded", "failed"):
        found = next((job["id"] for job in jobs if job["status"] == status), None)
        if found:
            yield f"job-{status}", f"/portal/jobs/{found}"
    done = [job["id"] for job in jobs if job["status"] == "succeeded" and job["metrics"]]
    if len(done) > 1:
        yield "compare", "/portal/compare?" + "&".join(f"job={each}" for each in done[:4])
    for noun in ("sweep", "webhook", "trigger"):
        if made := rest.get(f"/v1/{noun}s").raise_for_status().json()["data"]:
            yield noun, f"/portal/{noun}s/{made[0]['id']}"
    yield "new-sweep", "/portal/sweeps/new"
    for noun in ("sweeps", "models", "datasets", "triggers", "webhooks", "team", "workers"):
        yield noun, f"/portal/{noun}"


def take(page: Page, name: str, address: str, folder: Path) -> list[Path]:
    """A page at every width, from top to end."""
    taken = []
    for width_name, width in WIDTHS.items():
        for scheme in ("light", "dark") if width_name == "desktop" else ("light",):
            page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
            page.set_viewport_size({"width": width, "height": 844})
            page.goto(address)
            page.evaluate("document.querySelectorAll('img').forEach((each) => (each.loading = 'eager'))")
            page.wait_for_timeout(1500)  # charts arrive, curves draw themselves
            file = folder / f"{name}-{width_name}{'-dark' if scheme == 'dark' else ''}.png"
            save_picture(page.screenshot(full_page=True), file)
            taken.append(file)
    return taken


def save_picture(picture: bytes, file: Path) -> None:
    """Write a picture as a small PNG: pages have few colours."""
    with Image.open(io.BytesIO(picture)) as image:
        image.convert("RGB").quantize(_COLOURS).save(file, optimize=True)


def photograph(browser: Browser, url: str, key: str, folder: Path) -> list[Path]:
    """Every page, signing in first."""
    folder.mkdir(parents=True, exist_ok=True)
    page = browser.new_context(base_url=url).new_page()
    taken = take(page, "sign-in", "/portal/sign-in", folder)
    page.goto("/portal/sign-in")
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/portal/jobs")
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}) as rest:
        for name, address in pages(rest):
            taken += take(page, name, address, folder)
    return taken


def _shown(taken: Sequence[Path], beside: Path) -> str:
    """Links to a page's pictures in a line: whole pages are too tall to stand in one."""
    by_page: dict[str, list[str]] = {}
    for file in taken:
        name, width, scheme = next(file.stem.partition(each) for each in WIDTHS if f"-{each}" in file.stem)
        link = f"[{width}{scheme.replace('-', ', ')}]({file.relative_to(beside).as_posix()})"
        by_page.setdefault(name.rstrip("-").replace("-", " "), []).append(link)
    return "\n".join(f"- {name}: {', '.join(links)}" for name, links in by_page.items())


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


def show_weights(browser: Browser, url: str, key: str) -> bool:
    """Print the weight of every page; return whether one is over its budget."""
    rows, is_over = [], False
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}) as rest:
        for name, address in pages(rest):
            weight, milliseconds = weigh(browser, url, key, address)
            is_over = is_over or weight > MOST_BYTES or milliseconds > MOST_MILLISECONDS
            rows.append([name, f"{weight / 1000:.0f} kB", f"{milliseconds:.0f} ms"])
    print(table(["page", "compressed", f"interactive, processor {SLOWDOWN} × slower"], rows, text_columns=1))
    return is_over


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.portal_pages", description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--key-file", type=Path, default=Path(".secateur/api-key"))
    parser.add_argument("--write", type=Path, default=Path("docs/portal"), metavar="FOLDER")
    parser.add_argument("--page", type=Path, default=Path("docs/portal.md"), help="lists them")
    parser.add_argument("--budget", action="store_true", help="weigh the pages, and take no picture")
    options = parser.parse_args(arguments)
    key = options.key_file.read_text().strip()
    with chromium() as browser:
        if options.budget:
            return int(show_weights(browser, options.url, key))
        taken = photograph(browser, options.url, key, options.write)
    write_section(options.page, "pages", _shown(taken, options.page.parent))
    return 0


if __name__ == "__main__":
    sys.exit(main())
