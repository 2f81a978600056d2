"""A new job in three answers: what each amount would come to, and what is submitted."""

import html
import re
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.portal.browserless import Browserless
from tests.portal.conftest import DESKTOP

ASKED = 200
"""Milliseconds of a page's own clock after an answer, before the page asks what it comes to."""
_FITS = "document.documentElement.scrollHeight <= window.innerHeight"


@pytest.fixture
def somebody(live_api: httpx.Client, admin_key: str) -> Iterator[Browserless]:
    with closing(Browserless(live_api, admin_key)) as opened:
        yield opened


def _submit_address(page: str) -> str:
    """Return where the button that submits sends the answers: the job is in the query."""
    found = re.search(r'formaction="([^"]+)"', page)
    assert found is not None
    return html.unescape(found[1])


def _submitted(portal: Page, live_api: httpx.Client) -> dict[str, Any]:
    portal.wait_for_url("**/portal/jobs/job_*")
    job: dict[str, Any] = live_api.get(f"/v1/jobs/{portal.url.rsplit('/', 1)[-1]}").raise_for_status().json()
    return job


def test_three_answers_on_one_screen_become_a_job(
    portal: Page, live_api: httpx.Client, model: str, dataset: str
) -> None:
    width, height = DESKTOP
    portal.set_viewport_size({"width": width, "height": height})
    portal.clock.install()
    portal.goto("/portal/new")
    expect(portal.get_by_role("radio", name=model)).to_be_checked()
    expect(portal.locator(".model-choice")).to_contain_text("LlamaForCausalLM")
    expect(portal.locator(".sentence")).to_contain_text(dataset)
    assert portal.evaluate(_FITS), "all of it is on one screen"
    portal.get_by_role("radio", name="Sparse for a runtime of mine").check()
    portal.clock.run_for(ASKED)
    expect(portal.locator(".sentence")).to_contain_text("prunable weights")
    slider = portal.get_by_role("slider", name="Remove")
    slider.focus()
    portal.keyboard.press("End")
    chosen = float(slider.input_value())
    expect(portal.locator("#amount-shown")).to_have_text(f"{chosen:.0%}".replace("%", " %"))
    portal.clock.run_for(ASKED)
    expect(portal.locator(".sentence")).to_contain_text(f"{chosen:.0%}".replace("%", " %"))
    expect(slider).to_be_focused()
    assert portal.evaluate(_FITS), "all of it is on one screen"
    portal.get_by_role("button", name="Prune it").click()
    job = _submitted(portal, live_api)
    assert (job["model"], job["pattern"], job["sparsity"]) == (model, "unstructured", chosen)
    planned = live_api.post("/v1/plans", json={"model": model, "goal": "sparsity", "amount": chosen}).json()["job"]
    assert job["method"] == planned["method"] and job["calibration"]["dataset"] == dataset


def test_without_scripts_the_answers_are_steps_of_a_form(
    somebody: Browserless, live_api: httpx.Client, model: str, dataset: str
) -> None:
    speed = somebody.main("/portal/new")
    shown = re.search(r'name="shown"[^>]* value="([^"]*)"', speed)
    assert shown is not None and shown[1] == f"speed {model}"
    other = somebody.main(f"/portal/new?model={model}&for=size&amount=0.9&shown={shown[1]}")
    assert 'value="0.9"' not in other, "an amount that was shown for another goal is not meant for this one"
    page = f"/portal/new?model={model}&for=size"
    submit = _submit_address(somebody.main(page))
    answer = somebody.post(page, submit, {"model": model, "for": "size", "search": model[:2]})
    assert answer.status_code == 303, answer.text
    job = live_api.get(f"/v1/jobs/{answer.headers['location'].rpartition('/')[2]}").json()
    assert job["output"]["format"] == "packed" and job["calibration"]["dataset"] == dataset
    change = re.search(r'href="(/portal/new/full\?[^"]+)"', somebody.main(page))
    assert change is not None
    full = somebody.main(change[1].replace("&amp;", "&"))
    assert 'value="packed" selected' in full and f'name="model" value="{model}"' in full
