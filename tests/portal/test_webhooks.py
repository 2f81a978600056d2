"""Webhooks in the portal."""

from collections.abc import Iterator
from ipaddress import ip_network

import httpx
import pytest
from playwright.sync_api import Page, expect
from sqlalchemy.orm import Session, sessionmaker
from standardwebhooks import Webhook as Verifier

from core.settings import Settings
from tests.portal.browserless import Browserless
from tests.portal.conftest import hand_in_key, require_accessible
from tests.webhooks.conftest import Webhooks
from tests.webhooks.receiver import Receiver, receiving


@pytest.fixture
def settings(settings: Settings) -> Settings:
    allowed = {"webhook_allowed_networks": [ip_network("127.0.0.0/8")], "webhook_retry_delays": [0.0]}
    return settings.model_copy(update=allowed)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as server:
        yield server


@pytest.fixture
def webhooks(sessions: sessionmaker[Session], settings: Settings, team: str) -> Webhooks:
    return Webhooks(sessions, settings, team)


def test_a_webhook_is_made_tried_looked_into_changed_and_removed(
    portal: Page, receiver: Receiver, webhooks: Webhooks
) -> None:
    portal.goto("/portal/jobs")
    portal.get_by_role("link", name="Webhooks").click()
    expect(portal.get_by_role("heading", name="No webhooks yet")).to_be_visible()
    portal.get_by_label("Address").fill("https://[::1]/hook")
    portal.get_by_label("job.failed").check()
    portal.get_by_label("Only for jobs with these labels").fill("branch=<b>main</b>")
    portal.get_by_role("button", name="Make the webhook").click()
    expect(portal.locator("#field-url-error")).to_contain_text("not a public address")
    expect(portal.get_by_label("job.failed")).to_be_checked()
    require_accessible(portal)
    portal.get_by_label("Address").fill(receiver.url())
    portal.get_by_role("button", name="Make the webhook").click()
    secret = portal.locator("#new-key").inner_text()
    assert secret.startswith("whsec_") and secret not in portal.url
    require_accessible(portal)
    portal.get_by_role("link", name="Done").click()
    expect(portal.get_by_text("branch=<b>main</b>").first).to_be_visible()
    assert secret not in portal.content()
    receiver.answers = [500, 500]
    portal.get_by_role("button", name="Send a ping").click()
    webhooks.dispatch()
    portal.get_by_role("link", name="Look again").click()
    expect(portal.get_by_text("answered 500").first).to_be_visible()
    require_accessible(portal)
    portal.get_by_role("button", name="Send it again").click()
    expect(portal.locator("dl").get_by_text("pending")).to_be_visible()
    receiver.answers = [500, 500]
    webhooks.dispatch()
    portal.get_by_role("link", name=receiver.url()).click()
    portal.get_by_role("button", name="Send the failed ones again").click()
    webhooks.dispatch()
    portal.get_by_role("link", name="webhook.ping").click()
    expect(portal.locator("dl").get_by_text("delivered")).to_be_visible()
    Verifier(secret).verify(receiver.received[-1].body, receiver.received[-1].headers)
    portal.get_by_role("link", name=receiver.url()).click()
    require_accessible(portal)
    portal.get_by_label("Show").select_option("failed")
    portal.get_by_role("button", name="Filter").click()
    expect(portal.get_by_text("No delivery is failed.")).to_be_visible()
    portal.get_by_label("Only for jobs with these labels").fill("branch")
    portal.get_by_role("button", name="Save").click()
    expect(portal.locator("#field-metadata-error")).to_contain_text("NAME=VALUE")
    portal.get_by_label("Only for jobs with these labels").fill("")
    portal.get_by_role("button", name="Save").click()
    expect(portal.locator("dl .label")).to_have_text(["job.failed"])
    portal.get_by_role("button", name="Disable").click()
    expect(portal.get_by_text("disabled by hand")).to_be_visible()
    require_accessible(portal)
    portal.get_by_role("button", name="Enable").click()
    portal.get_by_text("New secret…").click()
    portal.get_by_label("The old secret ends").select_option("at once")
    portal.get_by_role("button", name="Make a new secret").click()
    assert portal.locator("#new-key").inner_text() != secret
    portal.get_by_role("link", name="Done").click()
    portal.get_by_text("Delete…").click()
    require_accessible(portal)
    portal.get_by_role("button", name="Delete the webhook").click()
    expect(portal.get_by_role("heading", name="No webhooks yet")).to_be_visible()


def test_viewers_look_members_try_and_others_see_nothing(
    visitor: Page, live_api: httpx.Client, viewer_key: str, member_key: str, other_team_key: str, webhooks: Webhooks
) -> None:
    webhook = webhooks.add("https://127.0.0.1:9/hook")
    webhooks.tell()
    [delivery] = webhooks.deliveries(webhook.id)
    page, one = f"/portal/webhooks/{webhook.id}", f"/portal/webhooks/{webhook.id}/deliveries/{delivery.id}"
    hand_in_key(visitor, viewer_key)
    visitor.goto("/portal/webhooks")
    require_accessible(visitor)
    viewer, member, stranger = (Browserless(live_api, key) for key in (viewer_key, member_key, other_team_key))
    assert one in viewer.main(page)
    for button in ("Send a ping", "Disable", "Save"):
        assert button not in viewer.main(page) and (button == "Send a ping") == (button in member.main(page)), button
    changes = ("", "/switch", "/rotate", "/delete")
    tries = ("/ping", "/replay", f"/deliveries/{delivery.id}/replay")
    for path in (*changes, *tries):
        assert viewer.post(page, page + path, {}).status_code == 403, path
        assert stranger.post("/portal/webhooks", page + path, {"url": webhook.url}).status_code == 404, path
    assert [member.post(page, page + path, {}).status_code for path in (*changes, *tries)] == [403] * 4 + [303] * 3
    assert stranger.http.get(page).status_code == stranger.http.get(one).status_code == 404
    for each in (viewer, member, stranger):
        each.close()
