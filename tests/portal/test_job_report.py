"""The page of a job that is over: its figures, its files, its recipe, or what went wrong."""

import re
from typing import Any

import httpx
from playwright.sync_api import Page, expect

from tests.portal.browserless import Browserless
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
    portal.get_by_role("button", name="Retry").click()
    expect(portal.locator("#head")).to_contain_text("waiting for a worker")
    portal.get_by_text("Cancel…").click()
    portal.get_by_role("button", name="Cancel the job").click()
    expect(portal.locator("#head")).to_contain_text("cancelled")


def test_the_recipe_is_downloaded_and_reused(
    submitted: Running, live_api: httpx.Client, admin_key: str, job_body: dict[str, Any]
) -> None:
    somebody, page = Browserless(live_api, admin_key), f"/portal/jobs/{submitted.id}"
    assert re.search(rf'<a[^>]* href="{page}/recipe.json"[^>]*>Download</a>', somebody.main(page))
    answer = somebody.http.get(f"{page}/recipe.json")
    assert answer.headers["content-disposition"].startswith("attachment")
    first, recipe = live_api.get(f"/v1/jobs/{submitted.id}").json(), answer.json()
    assert {name: first[name] for name in recipe} == recipe
    assert recipe["metadata"] == job_body["metadata"] and recipe["evaluation"]["sequence_length"] == 32
    assert re.search(rf'<a[^>]* href="/portal/new\?from={submitted.id}"[^>]*>Reuse</a>', somebody.main(page))
    somebody.close()
