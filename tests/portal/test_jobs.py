"""The list of jobs: what is found in it, in which order, and how it follows them."""

from typing import Any

import httpx
from playwright.sync_api import Page, expect
from sqlalchemy import update
from sqlalchemy.orm import Session, sessionmaker

from core.database import seconds_from_now, transaction
from core.service.jobs.tables import JobRow
from tests.portal.conftest import DESKTOP, PHONE, POLLED_WITHIN

_SCRIPT = "<script>document.title = 'taken'</script>"


def _submit(api: httpx.Client, body: dict[str, Any], **changes: Any) -> str:
    job: str = api.post("/v1/jobs", json=body | changes).raise_for_status().json()["id"]
    return job


def _change(sessions: sessionmaker[Session], job: str, **values: Any) -> None:
    with transaction(sessions) as session:
        session.execute(update(JobRow).where(JobRow.id == job).values(**values))


def _shown(page: Page) -> list[str]:
    return [row.get_attribute("id") or "" for row in page.locator("#jobs tbody tr").all()]


def test_jobs_are_found_sorted_and_paged(
    portal: Page, live_api: httpx.Client, sessions: sessionmaker[Session], job_body: dict[str, Any]
) -> None:
    jobs = [_submit(live_api, job_body, metadata={"number": f"nu{number}"}) for number in range(27)]  # no id has a u
    odd = _submit(live_api, job_body, method="magnitude", calibration=None, metadata={"note": _SCRIPT})
    error = {"code": "gate_missed", "message": "", "param": None, "retryable": False}
    _change(sessions, jobs[3], status="failed", error=error)
    portal.goto("/portal/jobs")
    assert _shown(portal) == [odd, *reversed(jobs[3:])]
    expect(portal.get_by_role("status").first).to_contain_text("25 jobs on this page: 24 queued, 1 failed.")
    expect(portal.get_by_text(_SCRIPT)).to_be_visible()
    assert portal.title() == "Jobs · Secateur"
    portal.get_by_role("link", name="Older").click()
    portal.wait_for_url("**after=*")
    assert _shown(portal) == [*reversed(jobs[:3])]
    portal.get_by_role("link", name="Newer").click()
    portal.wait_for_url("**before=*")
    assert _shown(portal) == [odd, *reversed(jobs[3:])]
    portal.get_by_label("Sort by").select_option("method")
    portal.get_by_label("Search").fill("NU2 tiny")
    portal.get_by_role("button", name="Show").click()
    portal.wait_for_url("**sort=method")
    found = [jobs[number] for number in (2, *range(20, 27))]
    assert _shown(portal) == found[::-1]
    assert portal.get_by_label("Search").input_value() == "NU2 tiny"
    portal.get_by_label("Search").fill("")
    portal.get_by_label("State").select_option("failed")
    portal.keyboard.press("Enter")
    portal.get_by_role("button", name="Show").click()
    expect(portal.locator(f"#{jobs[3]}")).to_contain_text("gate_missed")
    assert _shown(portal) == [jobs[3]]


def test_the_list_follows_its_jobs_and_leaves_focus_and_choice_alone(
    portal: Page, live_api: httpx.Client, sessions: sessionmaker[Session], job_body: dict[str, Any]
) -> None:
    first, second = _submit(live_api, job_body), _submit(live_api, job_body)
    portal.clock.install()
    portal.goto("/portal/jobs")
    width, height = PHONE
    portal.set_viewport_size({"width": width, "height": height})
    expect(portal.get_by_role("navigation", name="Main")).to_be_hidden()
    portal.get_by_text("Menu", exact=True).click()
    expect(portal.get_by_role("navigation", name="Main")).to_be_visible()
    for shown in (".of-result", ".id"):
        seen = portal.locator(f"#{first} {shown}").bounding_box()
        assert seen is not None and seen["x"] + seen["width"] <= width, (shown, seen)
    assert seen["height"] < 30, "an id is one line"
    portal.set_viewport_size({"width": DESKTOP[0], "height": DESKTOP[1]})
    box = portal.get_by_label(f"Compare {first}")
    box.check()
    portal.get_by_label(f"Reuse {first}").focus()
    third = _submit(live_api, job_body)
    lease = seconds_from_now(60)
    _change(sessions, second, status="running", stage="prune", progress=0.25, lease_expires_at=lease)
    portal.clock.run_for(POLLED_WITHIN)
    expect(portal.locator(f"#{second} progress")).to_have_attribute("value", "0.25")
    expect(portal.locator(f"#{second}")).to_contain_text("25 % · prune")
    assert _shown(portal) == [third, second, first]
    expect(box).to_be_checked()
    expect(portal.get_by_label(f"Reuse {first}")).to_be_focused()
    portal.get_by_label(f"Compare {second}").check()
    portal.get_by_role("button", name="Compare chosen jobs").click()
    portal.wait_for_url(f"**/portal/compare?job={second}&job={first}")


def test_a_job_is_cancelled_retried_and_reused_from_its_row(
    portal: Page, live_api: httpx.Client, job_body: dict[str, Any]
) -> None:
    job = _submit(live_api, job_body)
    portal.clock.install()
    portal.goto("/portal/jobs?status=queued")
    portal.get_by_text("Cancel…").click()
    portal.clock.run_for(POLLED_WITHIN)  # what comes meanwhile leaves the question open
    portal.get_by_role("button", name=f"Cancel {job}").press("Enter")
    expect(portal.get_by_text("No job matches.")).to_be_visible()
    assert portal.url.endswith("/portal/jobs?status=queued")
    portal.goto("/portal/jobs?search=tiny")
    portal.get_by_role("button", name=f"Retry {job}").press("Enter")
    expect(portal.locator(f"#open-{job}")).to_be_focused()
    assert live_api.get(f"/v1/jobs/{job}").json()["status"] == "queued"
    expect(portal.get_by_label(f"Reuse {job}")).to_have_attribute("href", f"/portal/new?from={job}")
