"""Triggers in the portal: made with their secrets shown once, fired by hand, looked at."""

import json
from typing import Any

import httpx
from playwright.sync_api import Page, expect


def test_a_trigger_is_made_fired_refused_disabled_and_deleted(
    portal: Page, live_api: httpx.Client, job_body: dict[str, Any]
) -> None:
    portal.goto("/portal/triggers")
    portal.get_by_role("link", name="Make a first trigger").click()
    portal.get_by_label("Name", exact=True).fill("nightly")
    portal.get_by_label("Cron expression").fill("61 * * * *")
    portal.get_by_label("Template").fill("{nothing")
    portal.get_by_role("button", name="Make the trigger").click()
    expect(portal.locator("[id='field-template-error']")).to_contain_text("not valid JSON")
    template = {**job_body, "metadata": {"commit": "${commit}"}}
    portal.get_by_label("Template").fill(json.dumps(template))
    portal.get_by_label("Placeholders").fill('{"commit": {"path": "/commit", "default": "none"}}')
    portal.get_by_role("button", name="Make the trigger").click()
    expect(portal.locator("[id='field-schedule.cron-error']")).to_contain_text("Bad minute")
    portal.get_by_label("Cron expression").fill("0 3 * * *")
    portal.get_by_label("Time zone").fill("Europe/Berlin")
    portal.get_by_label("Payloads must be signed").check()
    portal.get_by_role("button", name="Make the trigger").click()
    expect(portal.get_by_text("Copy what you need now.")).to_be_visible()
    url, secret = portal.locator("#new-url").inner_text(), portal.locator("#new-signing").inner_text()
    assert url.startswith(f"{live_api.base_url}/v1/hooks/hook_") and secret.startswith("whsec_")
    assert httpx.post(url, json={}).status_code == 401
    portal.get_by_role("link", name="Done").click()
    expect(portal.locator("#content")).to_contain_text("0 3 * * * Europe/Berlin")
    assert url not in portal.content() and secret not in portal.content()
    expect(portal.get_by_role("row", name="refused")).to_contain_text("webhook-signature missing")
    portal.get_by_label("Payload").fill('{"commit": 7}')
    portal.get_by_role("button", name="Fire").click()
    expect(portal.locator("#field-payload-error")).to_contain_text("placeholder commit")
    portal.get_by_label("Payload").fill('{"commit": "abc"}')
    portal.get_by_label("Event id").fill("once")
    portal.get_by_role("button", name="Fire").click()
    portal.wait_for_url("**/portal/jobs/job_*")
    job = portal.url.rpartition("/")[2]
    assert live_api.get(f"/v1/jobs/{job}").json()["metadata"] == {"commit": "abc", "trigger": "nightly"}
    portal.get_by_role("link", name="Triggers").click()
    portal.get_by_role("link", name="nightly").click()
    expect(portal.get_by_role("row", name="accepted")).to_contain_text(job)
    portal.get_by_role("button", name="Disable").click()
    expect(portal.get_by_role("button", name="Enable")).to_be_visible()
    portal.get_by_role("link", name="Change…").click()
    portal.get_by_label("Cron expression").fill("30 4 * * *")
    stale = portal.locator("input[name=since]").input_value()
    portal.get_by_role("button", name="Save the changes").click()
    portal.get_by_role("link", name="Change…").click()
    expect(portal.get_by_label("Cron expression")).to_have_value("30 4 * * *")
    portal.get_by_label("Cron expression").fill("0 3 * * *")
    portal.locator("input[name=since]").evaluate("(input, value) => input.value = value", stale)
    portal.get_by_role("button", name="Save the changes").click()
    expect(portal.get_by_text("somebody changed this trigger meanwhile")).to_be_visible()
    portal.goto(f"/portal/triggers/{live_api.get('/v1/triggers/nightly').json()['id']}")
    portal.get_by_text("Delete…").click()
    portal.get_by_role("button", name="Delete nightly").click()
    expect(portal.get_by_role("heading", name="No triggers yet")).to_be_visible()
