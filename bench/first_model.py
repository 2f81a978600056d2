"""Way from an empty portal to a pruned model that runs: `python -m bench.first_model [--write docs/portal]`.

A service of its own in a folder that is thrown away, and a real browser: nothing is typed but the key. Prints each step
with its seconds and how many clicks it took, and writes a picture of each. Ends with 1 where it takes more than six
clicks, or what was downloaded does not write text with transformers.
"""

import argparse
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.sync_api import Locator, Page, expect

from bench.browser import chromium
from bench.portal_pages import save_picture
from core.settings import Settings
from worker.embedded.serving import serving

MOST_CLICKS = 6
PROMPT = "The capital of France is"
_WAIT_SECONDS = 3600
_WRITE = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
tokens = tokenizer(sys.argv[2], return_tensors="pt")
written = model.generate(**tokens, max_new_tokens=16, do_sample=False)
print(tokenizer.decode(written[0], skip_special_tokens=True))
"""


@dataclass
class FirstVisit:
    """A visitor who counts clicks and takes a picture of each step."""

    page: Page
    pictures: Path
    began: float = field(default_factory=time.monotonic)
    clicks: int = 0
    steps: int = 0

    def click(self, target: Locator) -> None:
        target.click()
        self.clicks += 1

    def look(self, name: str) -> None:
        """Take a picture of what is on the screen, and say how long it took to get there."""
        self.steps += 1
        self.page.wait_for_timeout(500)
        file = self.pictures / f"first-model-{self.steps}-{name}.png"
        save_picture(self.page.screenshot(), file)
        print(f"{time.monotonic() - self.began:6.1f} s, {self.clicks} clicks: {name}", flush=True)


def prune_first_model(page: Page, url: str, key: str, pictures: Path, downloads: Path) -> tuple[FirstVisit, Path]:
    """Prune the sample model and download all of it; returns the visit and the unpacked folder."""
    visit = FirstVisit(page, pictures)
    page.goto(url)
    page.keyboard.type(key)  # the field has the focus
    visit.look("sign-in")
    visit.click(page.get_by_role("button", name="Sign in"))
    expect(page.get_by_role("heading", name="No jobs yet")).to_be_visible()
    visit.look("empty")
    visit.click(page.get_by_role("button", name="Prune a sample model"))
    page.get_by_text("Converting").wait_for(timeout=_WAIT_SECONDS * 1000)
    visit.look("samples")
    page.wait_for_url("**/portal/jobs/job_*", timeout=_WAIT_SECONDS * 1000)
    page.get_by_text("pruning", exact=False).first.wait_for(timeout=_WAIT_SECONDS * 1000)
    visit.look("running")
    page.locator(".badge.succeeded").first.wait_for(timeout=_WAIT_SECONDS * 1000)
    page.evaluate("window.scrollTo(0, 0)")
    visit.look("finished")
    with page.expect_download(timeout=_WAIT_SECONDS * 1000) as started:
        visit.click(page.get_by_role("link", name="Download everything"))
    archive = downloads / started.value.suggested_filename
    started.value.save_as(archive)
    with tarfile.open(archive) as opened:
        opened.extractall(downloads, filter="data")
    print(
        f"{time.monotonic() - visit.began:6.1f} s, {visit.clicks} clicks: downloaded {archive.stat().st_size:,} bytes"
    )
    return visit, next(downloads.rglob("config.json")).parent


def written_by(folder: Path) -> str:
    """Return what a downloaded model writes, in a process that knows nothing of Secateur."""
    command = [sys.executable, "-c", _WRITE, str(folder), PROMPT]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=600)
    return done.stdout.strip()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.first_model", description=__doc__)
    parser.add_argument("--write", type=Path, default=Path("docs/portal"), metavar="FOLDER", help="for the pictures")
    options = parser.parse_args(arguments)
    options.write.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="secateur-first-model-") as temporary:
        home, downloads = Path(temporary, "home"), Path(temporary, "downloads")
        downloads.mkdir()
        os.environ["SECATEUR_HOME"] = str(home)  # of the service's processes
        with serving(Settings(home=home), print) as url, chromium() as browser:
            page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
            key = (home / "api-key").read_text().strip()
            visit, folder = prune_first_model(page, url, key, options.write, downloads)
        text = written_by(folder)
    print(f"{visit.clicks} clicks, nothing typed but the key. It writes: {text}")
    return 0 if visit.clicks <= MOST_CLICKS and text.startswith(PROMPT) and len(text) > len(PROMPT) else 1


if __name__ == "__main__":
    sys.exit(main())
