"""The fleet as admins see it."""

from typing import Any

import httpx
from playwright.sync_api import Page, expect
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.jobs.queue import heartbeat
from tests.portal.browserless import Browserless
from tests.portal.conftest import POLLED_WITHIN, require_accessible


def test_workers_and_queues_are_followed_without_reload(
    portal: Page, live_api: httpx.Client, sessions: sessionmaker[Session], job_body: dict[str, Any]
) -> None:
    portal.clock.install()
    portal.goto("/portal/workers")
    expect(portal.get_by_text("No worker is alive")).to_be_visible()
    require_accessible(portal)
    job = live_api.post("/v1/jobs", json=job_body).json()["id"]
    described = {"device": "cuda", "device_name": "<b>H100</b>", "hostname": "bed-1", "pid": 1}
    memory = {"device_memory_bytes": 80 * 2**30, "device_memory_used_bytes": 20 * 2**30, "disk_free_bytes": 2**40}
    device = {"device_id": "GPU-1", "device_utilisation": 0.93, "device_celsius": 61, "device_uncorrected_errors": 2}
    broken = device | {"reason": "its memory had 2 uncorrectable errors since the driver was loaded"}
    with transaction(sessions) as session:
        heartbeat(session, "worker_1", queue="default", state="busy", job_id=job, **described, **memory)
        heartbeat(session, "worker_2", queue="h200", state="paused", reason="little disk", **described)
        heartbeat(session, "worker_3", queue="h200", state="draining", **described, **broken)
    portal.clock.run_for(POLLED_WITHIN)
    busy = portal.locator("#worker_1")
    expect(busy.get_by_role("link", name=job)).to_be_visible()  # htmx brought it
    expect(busy).to_contain_text("21.5 GB of 85.9 GB")
    expect(busy).to_contain_text("<b>H100</b>")
    expect(portal.locator("#worker_2")).to_contain_text("little disk")
    for text in ("draining", "device GPU-1", "93 % used", "61 °C", "2 uncorrectable memory errors", "since the driver"):
        expect(portal.locator("#worker_3")).to_contain_text(text)
    expect(portal.get_by_role("region", name="Queues").get_by_role("row", name="default")).to_contain_text("1")
    require_accessible(portal)


def test_only_admins_see_them_and_queues_are_told_by_rest(
    live_api: httpx.Client, member_key: str, job_body: dict[str, Any]
) -> None:
    live_api.post("/v1/jobs", json=job_body).raise_for_status()
    [queue] = live_api.get("/v1/queues").json()["data"]
    assert (queue["name"], queue["queued"], queue["running"]) == ("default", 1, 0) and queue["oldest_seconds"] > 0
    member = Browserless(live_api, member_key)
    assert member.http.get("/portal/workers").status_code == 403
    member.close()
