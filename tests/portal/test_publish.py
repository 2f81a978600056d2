"""Publishing from the portal, and what a team keeps."""

from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect
from sqlalchemy.orm import Session, sessionmaker

from core.service.publications.run import publish_waiting
from core.settings import Settings
from core.storage import Store
from tests.api.ended_job import succeeded_job
from tests.portal.browserless import Browserless
from tests.portal.conftest import POLLED_WITHIN
from tests.publications.conftest import FILES, USERS_TOKEN, hub, settings
from tests.publications.pushable_hub import PushedHub

__all__ = ["hub", "settings"]

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of the hub's own client

Sessions = sessionmaker[Session]


@pytest.fixture
def ended(live_api: httpx.Client, sessions: Sessions, store: Store, tmp_path: Path, model: str) -> str:
    """Id of a job with an artifact."""
    return succeeded_job(live_api, sessions, store, tmp_path / "artifact", model=model, files=FILES)


def test_a_job_is_published_and_the_page_follows_it(
    portal: Page, ended: str, hub: PushedHub, sessions: Sessions, settings: Settings
) -> None:
    portal.goto(f"/portal/jobs/{ended}")
    portal.get_by_role("link", name="Publish…").click()
    portal.get_by_label("Repository").fill("pruned")
    portal.get_by_label("Token", exact=True).fill(USERS_TOKEN)
    portal.get_by_role("button", name="Publish to the hub").click()
    expect(portal.locator("#field-repository-error")).to_contain_text("org/name")
    expect(portal.get_by_label("Repository")).to_have_value("pruned")
    assert USERS_TOKEN not in portal.content() and USERS_TOKEN not in portal.url
    portal.get_by_label("Repository").fill("acme/pruned")
    portal.get_by_label("Token", exact=True).fill(USERS_TOKEN)
    portal.clock.install()
    portal.get_by_role("button", name="Publish to the hub").click()
    row = portal.get_by_role("row", name="hub:acme/pruned")
    expect(row).to_contain_text("queued")
    expect(row).to_contain_text("it waits for its turn")
    publish_waiting(sessions, settings)
    portal.clock.run_for(POLLED_WITHIN)
    expect(row).to_contain_text("succeeded")
    expect(row.get_by_role("link")).to_contain_text("commit ")
    assert hub.repositories["model", "acme/pruned"].private and hub.commits_made == 1
    portal.goto(f"/portal/jobs/{ended}")
    expect(portal.get_by_text("hub:acme/pruned")).to_be_visible()


def test_credentials_do_not_come_back_over_signing_in(live_api: httpx.Client, ended: str, admin_key: str) -> None:
    """A form sent after the session has ended leads to signing in, and back with what was typed, but for these."""
    page = f"/portal/jobs/{ended}/publish"
    fields = {"kind": "hub", "repository": "acme/pruned", "token": USERS_TOKEN, "secret_key": USERS_TOKEN}
    with httpx.Client(base_url=live_api.base_url) as nobody:
        asked = nobody.post(page, data=fields)
    assert asked.status_code == 401 and "acme" in asked.text and USERS_TOKEN not in asked.text
    member = Browserless(live_api, admin_key)
    refused = member.post(page, page, {**fields, "repository": "no owner"})
    assert refused.status_code == 422 and USERS_TOKEN not in refused.text
    member.close()
