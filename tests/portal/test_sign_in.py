"""Signing in, staying signed in, and signing out; keys on the team's page; what is served as others published it."""

import hashlib
import json
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import update
from sqlalchemy.orm import Session, sessionmaker

from api.portal.static_files import STATIC
from core.database import transaction
from core.service.teams.tables import ApiKeyRow, PortalSessionRow
from tests.conftest import bearer
from tests.portal.conftest import sign_in


def test_a_key_opens_the_portal_where_one_wanted_to_go(visitor: Page, admin_key: str) -> None:
    visitor.goto("/portal/jobs?status=failed")
    expect(visitor.get_by_role("heading", name="Sign in to Secateur")).to_be_visible()
    visitor.get_by_label("API key").fill("sct_nonsense")
    visitor.get_by_role("button", name="Sign in").click()
    expect(visitor.get_by_text("this is not an API key of Secateur")).to_be_visible()
    visitor.get_by_label("API key").fill(admin_key)
    visitor.keyboard.press("Enter")
    expect(visitor).to_have_url("**/portal/jobs?status=failed".replace("**", visitor.url.split("/portal")[0]))
    expect(visitor.get_by_text("No job matches.")).to_be_visible()


def test_the_session_is_a_cookie_no_script_and_no_other_site_can_use(live_api: httpx.Client, admin_key: str) -> None:
    answer = httpx.post(f"{live_api.base_url}/portal/sign-in", data={"key": admin_key})
    name, *attributes = answer.headers["set-cookie"].split("; ")
    assert name.startswith("secateur_session=")
    assert {"httponly", "samesite=lax", "path=/portal"} <= {each.lower() for each in attributes}


def test_signing_out_ends_the_session_and_everywhere_ends_all(
    portal: Page, live_api: httpx.Client, admin_key: str
) -> None:
    other = httpx.Client(base_url=live_api.base_url)
    other.post("/portal/sign-in", data={"key": admin_key})
    assert other.get("/portal/jobs").status_code == 200
    portal.goto("/portal/jobs")
    portal.locator("summary").click()
    portal.get_by_role("button", name="Sign out", exact=True).click()
    expect(portal.get_by_label("API key")).to_be_visible()
    expect(portal.get_by_text("Your session has expired")).to_have_count(0)
    assert other.get("/portal/jobs").status_code == 200
    sign_in(portal, admin_key)
    portal.locator("summary").click()
    portal.get_by_role("button", name="Sign out everywhere").click()
    expect(portal.get_by_label("API key")).to_be_visible()
    assert other.get("/portal/jobs").status_code == 303
    other.close()


@pytest.fixture
def browserless(live_api: httpx.Client, admin_key: str) -> httpx.Client:
    """Signed in, without a browser."""
    client = httpx.Client(base_url=live_api.base_url)
    assert client.post("/portal/sign-in", data={"key": admin_key}).status_code == 303
    return client


def test_a_form_without_the_sessions_token_or_from_another_site_changes_nothing(browserless: httpx.Client) -> None:
    refused = browserless.post("/portal/sign-out", data={"everywhere": "1"})
    assert refused.status_code == 403 and "load the page again" in refused.text
    for header in (
        {"Origin": "https://elsewhere.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        refused = browserless.post("/portal/sign-in", data={"key": "x"}, headers=header)
        assert refused.status_code == 403 and "another site" in refused.text, header
    for own in ("same-origin", "none"):
        asked = browserless.post("/portal/sign-in", data={"key": "x"}, headers={"Sec-Fetch-Site": own})
        assert asked.status_code == 401, own
    assert browserless.get("/portal/jobs").status_code == 200
    browserless.close()


def test_a_session_ends_with_its_time_and_with_its_key(
    browserless: httpx.Client, live_api: httpx.Client, sessions: sessionmaker[Session]
) -> None:
    past = datetime.now(UTC) - timedelta(seconds=1)
    for ends in ("revoked", "expired"):
        new = live_api.post("/v1/keys", json={"name": "short", "role": "viewer"}).json()
        with httpx.Client(base_url=live_api.base_url) as other:
            other.post("/portal/sign-in", data={"key": new["key"]})
            assert other.get("/portal/jobs").status_code == 200
            if ends == "revoked":
                live_api.delete(f"/v1/keys/{new['id']}").raise_for_status()
            else:
                with transaction(sessions) as session:
                    session.execute(update(ApiKeyRow).where(ApiKeyRow.id == new["id"]).values(expires_at=past))
            assert other.get("/portal/jobs").status_code == 303, ends
    with transaction(sessions) as session:
        session.execute(update(PortalSessionRow).values(expires_at=past))
    del browserless.cookies["secateur_session"]  # browsers drop it when its time is over
    asked = browserless.get("/portal/jobs").headers["location"]
    assert asked.startswith("/portal/sign-in?then=")
    assert "Your session has expired" in browserless.get(asked).text
    browserless.close()


@pytest.mark.parametrize(
    "then", ["https://elsewhere.example/", "//elsewhere.example/", "/portal//x", "/portal/\\x", "/v1"]
)
def test_signing_in_leads_nowhere_else(live_api: httpx.Client, admin_key: str, then: str) -> None:
    answer = httpx.post(f"{live_api.base_url}/portal/sign-in", data={"key": admin_key, "then": then})
    assert answer.headers["location"] == "/portal/jobs"


def test_every_answer_has_the_content_policy(live_api: httpx.Client) -> None:
    for path in ("/portal/sign-in", "/portal/nothing", "/portal/static/portal.css"):
        headers = httpx.get(f"{live_api.base_url}{path}").headers
        assert headers["content-security-policy"].startswith("default-src 'none'"), path
        assert "unsafe" not in headers["content-security-policy"]


_VENDOR = STATIC / "vendor"


def test_every_vendored_file_is_named_with_its_version_licence_and_hash() -> None:
    packages = json.loads((_VENDOR / "versions.json").read_text())
    named = {}
    for package, facts in packages.items():
        assert facts["version"] and facts["licence"], package
        named |= {name: file["sha256"] for name, file in facts["files"].items()}
    count_waiting = {
        file.relative_to(_VENDOR).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in _VENDOR.rglob("*")
        if file.is_file()
    }
    count_waiting.pop("versions.json")
    assert count_waiting == named


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
