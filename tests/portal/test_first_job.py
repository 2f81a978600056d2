"""Somebody who has never used the API prunes a model, on the service as it is served, without touching a mouse."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.portal.conftest import DESKTOP, require_accessible
from tests.runner.models import write_model, write_words
from tests.worker.test_serve import House, a_home, settings_of
from worker.embedded.instance import open_instance
from worker.embedded.register import add_dataset, add_model
from worker.samples.language import CALIBRATION, EVALUATION, MODEL

_MOST_TABS = 150


@pytest.fixture
def home() -> Iterator[Path]:
    with a_home() as path:
        yield path


@pytest.fixture(params=["tiny", pytest.param("SmolLM2", marks=pytest.mark.nightly)])
def model_and_text(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path, Path]:
    """Folder of a model, and two texts."""
    if request.param == "tiny":
        text = write_words(tmp_path / "words.txt")
        return write_model(tmp_path / "model"), text, text
    samples = request.getfixturevalue("samples")
    texts = samples / "datasets"
    return samples / "models" / MODEL, texts / f"{CALIBRATION}.jsonl", texts / f"{EVALUATION}.jsonl"


@pytest.fixture
def served(home: Path, model_and_text: tuple[Path, Path, Path]) -> Iterator[str]:
    """Address of a service that knows a model and two texts by the names of the samples."""
    house = House(home)
    house.start()
    try:
        model, calibration, evaluation = model_and_text
        with open_instance(settings_of(home)) as opened:
            add_model(opened, MODEL, model.resolve(), say=print)
            add_dataset(opened, CALIBRATION, calibration.resolve())
            add_dataset(opened, EVALUATION, evaluation.resolve())
        yield (home / "url").read_text().strip()
    finally:
        house.end()


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


@pytest.mark.timeout(600)
def test_a_model_is_pruned_understood_and_downloaded_with_the_keyboard(
    browser: Browser, served: str, home: Path, model_and_text: tuple[Path, Path, Path]
) -> None:
    width, height = DESKTOP
    page = browser.new_context(base_url=served, viewport={"width": width, "height": height}).new_page()
    page.set_default_timeout(30_000)
    page.goto("/")
    expect(page.get_by_label("API key", exact=True)).to_be_focused()
    page.keyboard.type((home / "api-key").read_text().strip())
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="No jobs yet")).to_be_visible()
    _tab_to(page, page.get_by_role("link", name="Prune a first model"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="New job", exact=True)).to_be_visible()
    _fill(page, "Model", MODEL)
    expect(page.locator("#model-found")).to_contain_text("LlamaForCausalLM")
    for label, text in (("Samples", "4"), ("Sequence length", "32"), ("Samples of each", "4")):
        _fill(page, label, text)
    expect(page.locator("#commands")).to_contain_text("--calibration-samples 4")
    expect(page.locator("#outlook")).to_contain_text("memory")
    require_accessible(page)
    _tab_to(page, page.get_by_role("button", name="Submit job"))
    page.keyboard.press("Enter")
    page.wait_for_url("**/portal/jobs/job_*")
    job = page.url.rsplit("/", 1)[-1]
    page.evaluate("window.isTheSamePage = true")
    expect(page.locator(".verdict")).to_contain_text("perplexity", timeout=400_000)
    assert page.evaluate("window.isTheSamePage"), "the report came without reload"
    expect(page.locator("#curve-reconstruction-error canvas")).to_be_visible()
    expect(page.get_by_role("region", name="Evaluations")).to_contain_text(f"perplexity, {EVALUATION}")
    layers = json.loads((model_and_text[0] / "config.json").read_text())["num_hidden_layers"]
    expect(page.locator("#curve-reconstruction-error-rows tr")).to_have_count(layers)
    expect(page.locator(".verdict")).to_contain_text("zero")
    expect(page.locator(".badge.succeeded").first).to_be_visible()
    expect(page.get_by_role("heading", name="The capital of France is")).to_be_visible()
    require_accessible(page)

    row = page.get_by_role("row").filter(has_text="model.safetensors")
    link = row.get_by_role("link")
    _tab_to(page, link)
    with page.expect_download() as started:
        page.keyboard.press("Enter")
    content = started.value.path().read_bytes()
    expect(row).to_contain_text(hashlib.sha256(content).hexdigest())
    key = (home / "api-key").read_text().strip()
    files = httpx.get(f"{served}/v1/jobs/{job}/artifacts", headers={"Authorization": f"Bearer {key}"}).json()["data"]
    assert hashlib.sha256(content).hexdigest() in {each["sha256"] for each in files}
