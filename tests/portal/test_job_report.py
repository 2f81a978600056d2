"""The page of a job that is over: its figures, its files, its recipe, or what went wrong."""

from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Page, expect
from sqlalchemy import update

from core.database import transaction
from core.service.jobs import queue
from core.service.jobs.tables import JobRow
from tests.portal.conftest import require_accessible, sign_in
from tests.portal.running_job import Running


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
    require_accessible(portal)
    portal.get_by_role("button", name="Retry").click()
    expect(portal.locator("#head")).to_contain_text("waiting for a worker")
    portal.once("dialog", lambda dialog: dialog.accept())
    portal.get_by_role("button", name="Cancel").click()
    expect(portal.locator("#head")).to_contain_text("cancelled")


def test_the_recipe_is_downloaded_run_again_and_changed(
    portal: Page, submitted: Running, live_api: httpx.Client, job_body: dict[str, Any]
) -> None:
    portal.goto(f"/portal/jobs/{submitted.id}")
    with portal.expect_download() as download:
        portal.get_by_role("link", name="Download", exact=True).click()
    first = live_api.get(f"/v1/jobs/{submitted.id}").json()
    recipe = httpx.Response(200, content=Path(download.value.path()).read_bytes()).json()
    assert {name: first[name] for name in recipe} == recipe
    assert recipe["metadata"] == job_body["metadata"] and recipe["evaluation"]["sequence_length"] == 32
    portal.get_by_role("button", name="Rerun").click()
    portal.wait_for_url(lambda url: "/portal/jobs/job_" in url and not url.endswith(submitted.id))
    again = live_api.get(f"/v1/jobs/{portal.url.rsplit('/', 1)[-1]}").json()
    assert {name: again[name] for name in recipe} == recipe
    for name in ("Duplicate", "Fork: change and submit"):
        href = portal.get_by_role("link", name=name).get_attribute("href")
        assert href == f"/portal/new?from={again['id']}"


def test_a_sensitivity_job_shows_its_chart_and_leads_to_a_job_that_uses_it(
    portal: Page, submitted: Running, live_api: httpx.Client, job_body: dict[str, Any], tmp_path: Path
) -> None:
    asked = {"method": "magnitude", "rates": [0.5, 0.9]}
    body = {
        "model": job_body["model"],
        "method": "sensitivity",
        "parameters": asked,
        "evaluation": job_body["evaluation"],
    }
    live_api.post(f"/v1/jobs/{submitted.id}/cancel").raise_for_status()
    job = live_api.post("/v1/jobs", json=body).raise_for_status().json()["id"]
    dense = {"rate": 0.0, "sparsity": 0.0, "loss": 2.0, "perplexity": 7.4, "ratio": 1.0}
    points = [{**dense, "rate": rate, "sparsity": rate, "loss": 2.0 + rate} for rate in asked["rates"]]
    curves = [{"name": f"model.layers.{n}", "layer": n, "weights": 64, "points": points} for n in range(2)]
    found = {
        "task": "language-model", "method": "magnitude", "pattern": "unstructured", "scope": "layer",
        "rates": asked["rates"], "measured_on": {"dataset": "numbers"}, "dense": dense, "curves": curves,
    }  # fmt: skip
    metrics = {"sensitivity": {"dense": dense, "layers": 2, "rates": 2, "most_sensitive": "model.layers.1"}}
    Running(submitted.sessions, submitted.store, job).begin().succeed(
        tmp_path / "artifact", metrics, {"sensitivity": found}
    )
    portal.goto(f"/portal/jobs/{job}")
    expect(portal.locator(".verdict")).to_contain_text("model.layers.1 loses most")
    portal.locator("img.chart").scroll_into_view_if_needed()
    expect(portal.locator("img.chart")).to_have_js_property("complete", True)
    assert portal.locator("img.chart").evaluate("image => image.naturalWidth") > 0
    require_accessible(portal)
    href = portal.get_by_role("link", name="Prune with rates from it").get_attribute("href")
    assert href == f"/portal/new?model={body['model']}&parameters.allocation=job:{job}"


def test_what_is_not_ones_own_or_no_longer_there(
    visitor: Page, submitted: Running, other_team_key: str, viewer_key: str
) -> None:
    submitted.begin()
    submitted.log("long ago")
    submitted.fail("internal_error", "nothing known")
    with transaction(submitted.sessions) as session:
        session.execute(update(JobRow).values(finished_at=JobRow.created_at))
    with transaction(submitted.sessions) as session:
        assert queue.remove_old_events(session, retention_days=0) == 1
    sign_in(visitor, viewer_key)
    visitor.goto(f"/portal/jobs/{submitted.id}")
    expect(visitor.get_by_text("The log is no longer there")).to_be_visible()
    expect(visitor.get_by_role("button", name="Retry")).to_have_count(0)
    require_accessible(visitor)
    visitor.context.clear_cookies()
    sign_in(visitor, other_team_key)
    for path in ("", "/stream", "/log", "/recipe.json", "/layers.svg", "/files/model.safetensors"):
        found = visitor.request.get(f"/portal/jobs/{submitted.id}{path}")
        assert found.status == 404, path
    visitor.goto(f"/portal/jobs/{submitted.id}")
    expect(visitor.get_by_text(f"there is no job '{submitted.id}'")).to_be_visible()
