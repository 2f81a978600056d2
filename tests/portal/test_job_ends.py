"""The page of a job that ended otherwise than well: it missed its gate, was retried in vain, was stopped midway."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect
from sqlalchemy.orm import Session, sessionmaker

from core.service.jobs.gates import evaluate_gates, gates_report
from core.storage import Store, artifact_prefix
from secateur_wire.job_body import Gates
from secateur_wire.metrics import Metrics
from tests.portal.browserless import Browserless
from tests.portal.running_job import METRICS, REPORT, Running


@pytest.fixture
def somebody(live_api: httpx.Client, admin_key: str) -> Iterator[Browserless]:
    signed_in = Browserless(live_api, admin_key)
    yield signed_in
    signed_in.close()


@pytest.fixture
def missed(
    live_api: httpx.Client, job_body: dict[str, Any], sessions: sessionmaker[Session], store: Store, tmp_path: Path
) -> Running:
    """A job that missed its gate and left an artifact."""
    job = live_api.post("/v1/jobs", json=job_body).raise_for_status().json()["id"]
    running = Running(sessions, store, job).begin()
    folder = tmp_path / "artifact"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "secateur.json").write_text("{}")
    files = store.publish(folder, artifact_prefix(job, 1))
    running.fail("gate_missed", "too far", metrics=METRICS, report=REPORT, files=files)
    return running


def test_what_would_fail_again_is_changed_and_not_retried(somebody: Browserless, submitted: Running) -> None:
    submitted.begin().fail("too_little_text", "it cannot be")
    for address in (f"/portal/jobs/{submitted.id}", "/portal/jobs"):
        shown = somebody.http.get(address).text
        assert f'href="/portal/new?from={submitted.id}"' in shown and "Reuse" in shown
        assert f"/portal/jobs/{submitted.id}/retry" not in shown


def test_figures_and_files_stay_on_the_page_through_a_cancelled_retry(somebody: Browserless, missed: Running) -> None:
    page = f"/portal/jobs/{missed.id}"
    for what in ("retry", "cancel"):
        assert somebody.post(page, f"{page}/{what}", {}).status_code == 303
    shown = somebody.http.get(page).text
    assert "The figures and files below come from an earlier attempt, which missed a gate." in shown
    assert "<h2>Result</h2>" in shown and "× smaller" in shown and "the figures above say more" in shown
    assert f"{page}/files/model.safetensors" in shown
    assert somebody.http.get(f"{page}/files/model.safetensors").content == b"weights"
    publishing = somebody.http.get(f"{page}/publish").text
    assert "The artifact comes from an attempt that missed a gate." in publishing and "despite_gates" in publishing


def test_a_latency_that_is_below_its_limit_by_less_than_its_noise_is_unproven(
    somebody: Browserless, submitted: Running
) -> None:
    gates = Gates(max_latency_ratio=1.0, max_bytes=50_000)
    found = gates_report(gates, evaluate_gates(gates, Metrics.model_validate(METRICS))).document()
    submitted.begin().fail("gate_missed", str(found["missed"]), metrics=METRICS, report=REPORT | {"gates": found})
    rows = re.findall(r"<tr><th scope=\"row\">(.*?)</tr>", somebody.http.get(f"/portal/jobs/{submitted.id}").text)
    shown = [re.sub(r"<[^>]*>", " ", row).split() for row in rows]
    assert ["latency", "ratio", "1.0", "0.9900", "±", "8", "%", "✗", "unproven"] in shown
    assert ["bytes", "50,000", "100,000", "✗", "missed"] in shown


def test_a_failed_job_says_what_happened_why_and_what_to_try(portal: Page, submitted: Running) -> None:
    submitted.begin()
    submitted.log("in block 3 <script>alert(1)</script>")
    submitted.fail("out_of_memory", "memory ran out: <script>alert(2)</script>")
    portal.goto(f"/portal/jobs/{submitted.id}")
    expect(portal.get_by_role("heading", name="What went wrong: out of memory")).to_be_visible()
    failure = portal.locator(".failure")
    expect(failure).to_contain_text("memory ran out: <script>alert(2)</script>")
    expect(failure).to_contain_text("Use fewer or shorter calibration and evaluation samples.")
    expect(failure).to_contain_text("in block 3 <script>alert(1)</script>")
    expect(portal.get_by_role("region", name="Attempts")).to_contain_text("Out of memory")
    portal.get_by_role("button", name="Retry").click()
    expect(portal.locator("#head")).to_contain_text("waiting for a worker")
    portal.get_by_text("Cancel…").click()
    portal.get_by_role("button", name="Cancel the job").click()
    expect(portal.locator("#head")).to_contain_text("cancelled")


def test_the_recipe_is_downloaded_and_reused(
    somebody: Browserless, submitted: Running, live_api: httpx.Client, job_body: dict[str, Any]
) -> None:
    page = f"/portal/jobs/{submitted.id}"
    assert re.search(rf'<a[^>]* href="{page}/recipe.json"[^>]*>Download</a>', somebody.main(page))
    answer = somebody.http.get(f"{page}/recipe.json")
    assert answer.headers["content-disposition"].startswith("attachment")
    first, recipe = live_api.get(f"/v1/jobs/{submitted.id}").json(), answer.json()
    assert {name: first[name] for name in recipe} == recipe
    assert recipe["metadata"] == job_body["metadata"] and recipe["evaluation"]["sequence_length"] == 32
    assert re.search(rf'<a[^>]* href="/portal/new\?from={submitted.id}"[^>]*>Reuse</a>', somebody.main(page))
