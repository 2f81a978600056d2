"""First part: the sample model, pruned in the portal, from the key to a downloaded model that writes text."""

import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Final

from playwright.sync_api import expect

from bench.first_model.visit import WAIT_SECONDS, Visit

PROMPT: Final = "The capital of France is"
_WRITE: Final = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
tokens = tokenizer(sys.argv[2], return_tensors="pt")
written = model.generate(**tokens, max_new_tokens=16, do_sample=False)
print(tokenizer.decode(written[0], skip_special_tokens=True))
"""
_MILLISECONDS: Final = WAIT_SECONDS * 1000


def prune_sample(visit: Visit, url: str, key: str, downloads: Path) -> Path:
    """Prune the sample model, download all of it, and return the unpacked folder. Nothing is typed but the key."""
    page = visit.page
    page.goto(url)
    page.keyboard.type(key)  # the field has the focus
    visit.reach("sign in")
    visit.click(page.get_by_role("button", name="Sign in"))
    expect(page.get_by_role("heading", name="No jobs yet")).to_be_visible()
    visit.reach("nothing yet")
    visit.click(page.get_by_role("button", name="Prune a sample model"))
    page.get_by_text("Converting").wait_for(timeout=_MILLISECONDS)
    visit.reach("sample comes")
    page.wait_for_url("**/portal/jobs/job_*", timeout=_MILLISECONDS)
    page.get_by_text("pruning", exact=False).first.wait_for(timeout=_MILLISECONDS)
    visit.reach("job runs")
    page.locator(".badge.succeeded").first.wait_for(timeout=_MILLISECONDS)
    page.evaluate("window.scrollTo(0, 0)")
    visit.reach("result")
    with page.expect_download(timeout=_MILLISECONDS) as started:
        visit.click(page.get_by_role("link", name="Download everything"))
    archive = downloads / started.value.suggested_filename
    started.value.save_as(archive)
    with tarfile.open(archive) as opened:
        opened.extractall(downloads, filter="data")
    visit.note(f"downloaded, {archive.stat().st_size / 1e6:.0f} MB")
    return next(downloads.rglob("config.json")).parent


def written_by(folder: Path) -> str:
    """Return what a downloaded model writes, in a process that knows nothing of Secateur."""
    command = [sys.executable, "-c", _WRITE, str(folder), PROMPT]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=600)
    return done.stdout.strip()
