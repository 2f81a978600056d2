"""A new job by its full form: what the page shows while it is written down, and what is submitted."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.portal.browserless import Browserless

TYPED = 400
"""Milliseconds of a page's own clock after the last key, before it asks what the form comes to."""


@pytest.fixture
def browserless(live_api: httpx.Client, admin_key: str) -> Iterator[Browserless]:
    with closing(Browserless(live_api, admin_key)) as opened:
        yield opened


def _post(client: Browserless, fields: dict[str, Any]) -> httpx.Response:
    return client.post("/portal/new/full", "/portal/new/full", fields)


def _submitted(client: Browserless, live_api: httpx.Client, fields: dict[str, Any]) -> dict[str, Any]:
    answer = _post(client, fields)
    assert answer.status_code == 303, answer.text
    job: dict[str, Any] = live_api.get(f"/v1/jobs/{answer.headers['location'].rpartition('/')[2]}").json()
    return job


def _open(page: Page, section: str) -> None:
    page.locator("summary", has_text=section).first.click()


def test_only_a_model_named_makes_a_job_that_is_worth_running(
    browserless: Browserless, live_api: httpx.Client, model: str, dataset: str
) -> None:
    job = _submitted(browserless, live_api, {"model": model, "once": "a"})
    assert _submitted(browserless, live_api, {"model": model, "once": "a"})["id"] == job["id"], "a button pressed twice"
    assert (job["method"], job["sparsity"], job["pattern"]) == ("frontier", 0.5, "unstructured")
    calibration = {"dataset": dataset, "samples": 20, "generated": 6, "sequence_length": 64, "seed": 0}
    assert job["calibration"] == calibration and job["evaluation"]["datasets"] == [dataset]


def test_a_filled_form_is_exactly_that_body(
    browserless: Browserless, live_api: httpx.Client, job_body: dict[str, Any]
) -> None:
    from_rest = live_api.post("/v1/jobs", json=job_body).raise_for_status().json()
    fields = {
        "model": job_body["model"],
        "method": "wanda",
        "goal": "sparsity",
        "sparsity": "0.5",
        "calibration.dataset": job_body["calibration"]["dataset"],
        "calibration.samples": "8",
        "calibration.sequence_length": "32",
        "evaluation.datasets": job_body["evaluation"]["datasets"],
        "evaluation.samples": "4",
        "metadata": "commit=abc",
        "shown_for": "sparsegpt",
        "parameters.damping": "0.5",
        "filled_for": "language-model",
    }
    from_form = _submitted(browserless, live_api, fields)
    own = {"id", "created_at"}
    assert {k: v for k, v in from_form.items() if k not in own} == {k: v for k, v in from_rest.items() if k not in own}
    again = browserless.http.get(f"/portal/new/full?from={from_rest['id']}&sparsity=0.25").text
    assert 'name="sparsity" value="0.25"' in again and 'value="wanda"' in again
    assert browserless.http.get("/portal/new/full?from=job_nothing").status_code == 404


def test_a_fault_is_told_at_its_field_and_nothing_typed_is_lost(
    browserless: Browserless, live_api: httpx.Client, model: str, dataset: str
) -> None:
    markup = "<script>alert(1)</script>"
    fields = {
        "model": model,
        "method": "wanda",
        "sparsity": "1.5",
        "calibration.dataset": dataset,
        "calibration.samples": "many",
        "metadata": f"note={markup}",
        "filled_for": "language-model",
    }
    answer = _post(browserless, fields)
    assert answer.status_code == 422
    assert 'href="#field-calibration.samples"' in answer.text and 'id="field-calibration.samples-error"' in answer.text
    for typed in ('value="1.5"', 'value="many"', f'value="{dataset}"'):
        assert typed in answer.text
    assert markup not in answer.text and "&lt;script&gt;" in answer.text
    assert live_api.get("/v1/jobs").json()["data"] == []


def test_the_page_follows_what_is_chosen_and_submits_it(portal: Page, model: str, dataset: str) -> None:
    portal.clock.install()
    portal.goto("/portal/new/full")
    portal.get_by_label("Model", exact=True).fill(model)
    portal.clock.run_for(TYPED)
    expect(portal.locator("#model-found")).to_contain_text("LlamaForCausalLM")
    expect(portal.get_by_label("Frontier", exact=True)).to_be_checked()
    expect(portal.locator("#outlook")).to_contain_text("Peak memory")
    expect(portal.locator("#as-curl")).to_contain_text('"calibration"')
    _open(portal, "Data")
    _open(portal, "Unstructured and semi-structured")
    portal.get_by_label("SparseGPT", exact=True).check()
    portal.clock.run_for(TYPED)
    expect(portal.get_by_text("Parameters of SparseGPT")).to_be_visible()
    portal.get_by_text("Parameters of SparseGPT").click()
    portal.get_by_label("Damping").fill("0.02")
    portal.clock.run_for(TYPED)
    expect(portal.locator("#as-curl")).to_contain_text('"damping": 0.02')
    portal.get_by_label("Dataset", exact=True).first.fill("nothing-of-this-name")
    portal.clock.run_for(TYPED)
    expect(portal.locator("[id='field-calibration.dataset-error']")).to_contain_text("there is no dataset")
    portal.get_by_label("Dataset", exact=True).first.fill(dataset)
    portal.clock.run_for(TYPED)
    expect(portal.locator("[id='field-calibration.dataset-error']")).to_have_count(0)
    portal.get_by_role("button", name="Submit job").click()
    portal.wait_for_url("**/portal/jobs/job_*")


def test_without_scripts_check_shows_the_same_and_a_lost_session_loses_nothing(
    portal: Page, live_api: httpx.Client, admin_key: str, model: str, dataset: str
) -> None:
    context = portal.context.browser.new_context(
        java_script_enabled=False, storage_state=portal.context.storage_state()
    )
    page = context.new_page()
    page.goto(f"{live_api.base_url}/portal/new/full")
    page.get_by_label("Model", exact=True).fill(model)
    page.get_by_role("button", name="Check").click()
    expect(page.locator("#outlook")).to_contain_text("Peak memory")
    expect(page.get_by_label("Frontier", exact=True)).to_be_checked()
    page.get_by_label("Sparsity", exact=True).fill("0.3")
    context.clear_cookies()
    page.get_by_role("button", name="Submit job").click()
    page.get_by_label("API key").fill(admin_key)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_label("Sparsity", exact=True)).to_have_value("0.3")
    page.get_by_role("button", name="Submit job").click()
    page.wait_for_url("**/portal/jobs/job_*")
    context.close()
