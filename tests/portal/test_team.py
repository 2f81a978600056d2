"""The team's page: quotas, keys, the audit trail."""

import httpx
from playwright.sync_api import Page, expect
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.teams.administration import set_limits
from tests.conftest import bearer
from tests.portal.browserless import Browserless
from tests.portal.conftest import require_accessible


def test_a_key_is_made_shown_once_used_rotated_and_revoked(portal: Page, live_api: httpx.Client) -> None:
    portal.goto("/portal/team")
    portal.get_by_label("Name", exact=True).fill("<script>night</script>")
    portal.get_by_label("Role").select_option("viewer")
    portal.get_by_label("Expires on").fill("2020-01-01")
    portal.get_by_role("button", name="Make the key").click()
    expect(portal.locator("#field-expires_at-error")).to_contain_text("lies in the past")
    expect(portal.get_by_label("Name", exact=True)).to_have_value("<script>night</script>")
    require_accessible(portal)
    portal.get_by_label("Expires on").fill("2100-01-01")
    portal.get_by_role("button", name="Make the key").click()
    expect(portal.get_by_text("Copy it now.")).to_be_visible()
    key = portal.locator("#new-key").inner_text()
    assert key.startswith("sct_") and key not in portal.url
    require_accessible(portal)
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
    require_accessible(portal)
    row.get_by_role("button", name="Revoke").click()
    expect(portal.get_by_role("row", name="<script>night</script>").filter(has_text="revoked")).to_be_visible()
    assert live_api.get("/v1/jobs", headers=bearer(successor)).status_code == 401
    own = portal.get_by_role("row", name="(yours now)")
    own.get_by_text("Revoke…").click()
    own.get_by_role("button", name="Revoke").click()
    expect(portal.get_by_role("alert")).to_contain_text("the team's last admin key")


def test_quotas_are_told_in_words_and_the_trail_says_who_did_what_from_where(
    portal: Page, live_api: httpx.Client, sessions: sessionmaker[Session]
) -> None:
    with transaction(sessions) as session:
        set_limits(session, "gardeners", {"max_queued": 4, "max_stored_bytes": 2**30})
    key = live_api.post("/v1/keys", json={"name": "spare"}).json()["id"]
    portal.goto("/portal/team")
    expect(portal.get_by_role("row", name="Stored models")).to_contain_text("1.1 GB")
    expect(portal.get_by_role("meter", name="Jobs that wait")).to_be_visible()
    expect(portal.get_by_role("row", name="Jobs that run")).to_contain_text("no limit")
    require_accessible(portal)
    portal.get_by_role("link", name="Audit trail").click()
    portal.get_by_label("Action").fill("key.create")
    portal.get_by_label("Action").press("Enter")
    made = portal.get_by_role("row", name=key)
    expect(made).to_contain_text("admin")
    expect(made).to_contain_text("127.0.0.1")
    expect(portal.locator("tbody").get_by_text("team.set")).to_have_count(0)
    require_accessible(portal)


def test_viewers_see_the_quotas_and_no_keys(live_api: httpx.Client, viewer_key: str) -> None:
    viewer = Browserless(live_api, viewer_key)
    shown = viewer.main("/portal/team")
    assert "Quotas and use" in shown and "Make the key" not in shown
    assert viewer.http.get("/portal/team/audit").status_code == 403
    for path in ("keys", "keys/key_x/rotate", "keys/key_x/revoke"):
        assert viewer.post("/portal/team", f"/portal/team/{path}", {"name": "mine", "role": "admin"}).status_code == 403
    viewer.close()
