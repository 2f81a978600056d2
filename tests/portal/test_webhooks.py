"""Webhooks in the portal."""

from collections.abc import Iterator
from ipaddress import ip_network

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy.orm import Session, sessionmaker
from standardwebhooks import Webhook as Verifier

from core.settings import Settings
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
    portal.get_by_label("Address").fill(receiver.url())
    portal.get_by_role("button", name="Make the webhook").click()
    secret = portal.locator("#new-key").inner_text()
    assert secret.startswith("whsec_") and secret not in portal.url
    portal.get_by_role("link", name="Done").click()
    expect(portal.get_by_text("branch=<b>main</b>").first).to_be_visible()
    assert secret not in portal.content()
    receiver.answers = [500, 500]
    portal.get_by_role("button", name="Send a ping").click()
    webhooks.dispatch()
    portal.get_by_role("link", name="Look again").click()
    expect(portal.get_by_text("answered 500").first).to_be_visible()
    portal.get_by_role("button", name="Send it again").click()
    expect(portal.locator("dl").get_by_text("pending")).to_be_visible()
    webhooks.dispatch()
    portal.get_by_role("link", name="Look again").click()
    expect(portal.locator("dl").get_by_text("delivered")).to_be_visible()
    Verifier(secret).verify(receiver.received[-1].body, receiver.received[-1].headers)
    portal.get_by_role("link", name=receiver.url()).click()
    portal.get_by_role("button", name="Disable").click()
    expect(portal.get_by_text("disabled by hand")).to_be_visible()
    portal.get_by_role("button", name="Enable").click()
    portal.get_by_text("New secret…").click()
    portal.get_by_label("The old secret ends").select_option("at once")
    portal.get_by_role("button", name="Make a new secret").click()
    assert portal.locator("#new-key").inner_text() != secret
    portal.get_by_role("link", name="Done").click()
    portal.get_by_text("Delete…").click()
    portal.get_by_role("button", name="Delete the webhook").click()
    expect(portal.get_by_role("heading", name="No webhooks yet")).to_be_visible()
