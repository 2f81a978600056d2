"""The team's page: quotas, keys, the audit trail."""

import httpx
from playwright.sync_api import Page, expect

from tests.conftest import bearer


def test_a_key_is_made_shown_once_used_rotated_and_revoked(portal: Page, live_api: httpx.Client) -> None:
    portal.goto("/portal/team")
    portal.get_by_label("Name", exact=True).fill("<script>night</script>")
    portal.get_by_label("Role").select_option("viewer")
    portal.get_by_label("Expires on").fill("2020-01-01")
    portal.get_by_role("button", name="Make the key").click()
    expect(portal.locator("#field-expires_at-error")).to_contain_text("lies in the past")
    expect(portal.get_by_label("Name", exact=True)).to_have_value("<script>night</script>")
    portal.get_by_label("Expires on").fill("2100-01-01")
    portal.get_by_role("button", name="Make the key").click()
    expect(portal.get_by_text("Copy it now.")).to_be_visible()
    key = portal.locator("#new-key").inner_text()
    assert key.startswith("sct_") and key not in portal.url
    assert live_api.get("/v1/jobs", headers=bearer(key)).status_code == 200
    portal.get_by_role("link", name="Done").click()
    row = portal.get_by_role("row", name="<script>night</script>")
    expect(row).to_contain_text("just now")
    assert key not in portal.content()
    row.get_by_text("Rotate…").click()
    row.get_by_label("The old key ends").select_option("at once")
    row.get_by_role("button", name="Rotate").click()
    successor = portal.locator("#new-key").inner_text()
    assert live_api.get("/v1/jobs", headers=bearer(key)).status_code == 401
    assert live_api.get("/v1/jobs", headers=bearer(successor)).status_code == 200
    portal.get_by_role("link", name="Done").click()
    row = portal.get_by_role("row", name="<script>night</script>").filter(has_text="active")
    row.get_by_text("Revoke…").click()
    row.get_by_role("button", name="Revoke").click()
    expect(portal.get_by_role("row", name="<script>night</script>").filter(has_text="revoked")).to_be_visible()
    assert live_api.get("/v1/jobs", headers=bearer(successor)).status_code == 401
    own = portal.get_by_role("row", name="(yours now)")
    own.get_by_text("Revoke…").click()
    own.get_by_role("button", name="Revoke").click()
    expect(portal.get_by_role("alert")).to_contain_text("the team's last admin key")
