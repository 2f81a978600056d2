"""Somebody who has never used the API prunes a model without touching a mouse: in the suite beside the service's other
tests and with the product's own runner, in a night on the service as it is served.
"""

import hashlib
import tarfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, expect
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.registry.schemas import DatasetBody, ModelBody
from core.service.registry.service import read_dataset, read_model, register_dataset, register_model
from core.settings import Settings
from core.storage import Store
from tests.conftest import bearer
from tests.portal.conftest import DESKTOP
from tests.runner.conftest import at_once, begin_work
from tests.runner.models import write_model, write_words
from tests.shown_ways import run_in_shell
from worker.samples.language import CALIBRATION, EVALUATION, MODEL

_MOST_TABS = 150


@dataclass(frozen=True)
class Place:
    """A service that knows a model and two texts by the names of the samples, and a key to it.

    `work` is called once a job waits, and gives what looks how it went.
    """

    url: str
    key: str
    layers: int
    work: Callable[[], Callable[[], object]]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return at_once(settings)


@pytest.fixture
def here(
    live_api: httpx.Client, admin_key: str, settings: Settings, sessions: sessionmaker[Session], store: Store, team: str
) -> Place:
    layers = 2
    model = write_model(settings.models_root / "layered", layers)
    text = write_words(settings.datasets_root / "words.txt")
    with transaction(sessions) as session:
        register_model(session, team, read_model(ModelBody(name=MODEL, path=str(model.resolve())), settings))
        for name in (CALIBRATION, EVALUATION):
            register_dataset(session, team, read_dataset(DatasetBody(name=name, path=str(text.resolve())), settings))

    def work() -> Callable[[], object]:
        return begin_work(settings, sessions, store, threading.Event()).result

    return Place(str(live_api.base_url), admin_key, layers, work)


def _tab_to(page: Page, target: Locator) -> None:
    """With the keyboard alone."""
    target.first.wait_for()
    for _ in range(_MOST_TABS):
        if target.first.evaluate("element => element === document.activeElement"):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"{target} is not reached with {_MOST_TABS} tabs")


def _fill(page: Page, label: str, text: str) -> None:
    _tab_to(page, page.get_by_label(label, exact=True))
    page.keyboard.press("Control+A")
    page.keyboard.type(text)


def test_a_model_is_pruned_understood_downloaded_and_run_with_the_keyboard(
    browser: Browser, here: Place, tmp_path: Path
) -> None:
    width, height = DESKTOP
    page = browser.new_context(base_url=here.url, viewport={"width": width, "height": height}).new_page()
    page.set_default_timeout(120_000)
    page.goto("/")
    expect(page.get_by_label("API key", exact=True)).to_be_focused()
    page.keyboard.type(here.key)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="No jobs yet")).to_be_visible()
    _tab_to(page, page.get_by_role("link", name="Prune a first model"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="New job", exact=True)).to_be_visible()
    expect(page.locator(".sentence")).to_contain_text(CALIBRATION)
    _tab_to(page, page.get_by_role("radio", name="Faster and smaller on ordinary hardware"))
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(page.locator(".sentence")).to_contain_text("prunable weights")
    _tab_to(page, page.get_by_role("link", name="Change anything"))
    page.keyboard.press("Enter")
    expect(page.locator("#model-found")).to_contain_text("LlamaForCausalLM")
    _tab_to(page, page.locator("#section-data > summary"))
    page.keyboard.press("Enter")
    for label, text in (("Samples", "4"), ("Sequence length", "32"), ("Samples of each", "4")):
        _fill(page, label, text)
    expect(page.locator("#as-curl")).to_contain_text('"samples": 4')
    expect(page.locator("#outlook")).to_contain_text("memory")
    _tab_to(page, page.get_by_role("button", name="Submit job"))
    page.keyboard.press("Enter")
    page.wait_for_url("**/portal/jobs/job_*")
    job = page.url.rsplit("/", 1)[-1]
    page.evaluate("window.isTheSamePage = true")
    end = here.work()
    expect(page.locator(".verdict")).to_contain_text("perplexity", timeout=400_000)
    end()
    assert page.evaluate("window.isTheSamePage"), "the report came without reload"
    expect(page.locator("#curve-reconstruction-error canvas")).to_be_visible()
    expect(page.get_by_role("region", name="Evaluations")).to_contain_text(f"perplexity, {EVALUATION}")
    expect(page.locator("#curve-reconstruction-error-rows tr")).to_have_count(here.layers)
    expect(page.locator(".verdict")).to_contain_text("zero")
    expect(page.locator(".badge.succeeded").first).to_be_visible()
    expect(page.get_by_role("heading", name="The capital of France is")).to_be_visible()

    with page.expect_download() as whole:
        page.get_by_role("link", name="Download everything").press("Enter")
    with tarfile.open(whole.value.path()) as archive:
        assert f"{job}/model.safetensors" in archive.getnames()
    for label in ("Command that downloads", "Commands for transformers"):
        commands = page.get_by_role("region", name=label).inner_text()
        written = run_in_shell(commands, tmp_path, SECATEUR_API_KEY=here.key)
    assert len(written.split()) > 5, "both commands that the page shows work, one after the other"

    row = page.get_by_role("row").filter(has_text="model.safetensors")
    link = row.get_by_role("link")
    _tab_to(page, link)
    with page.expect_download() as started:
        page.keyboard.press("Enter")
    content = started.value.path().read_bytes()
    expect(row).to_contain_text(hashlib.sha256(content).hexdigest())
    files = httpx.get(f"{here.url}/v1/jobs/{job}/artifacts", headers=bearer(here.key)).json()["data"]
    assert hashlib.sha256(content).hexdigest() in {each["sha256"] for each in files}
    page.context.close()
