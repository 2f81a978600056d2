"""A dispatcher that is killed while it publishes: the next one goes on, and what was there is not sent again."""

import hashlib
import os
import signal
from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, update
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.publications.tables import PublicationRow
from core.settings import Settings
from tests.publications.conftest import FILES, USERS_TOKEN, Publish
from tests.publications.pushable_hub import PushedHub
from tests.sources.hub_server import TOKEN
from tests.worker.conftest import StartPart, eventually, start_part
from worker.processes import ChildProcess

__all__ = ["start_part"]

StartDispatcher = Callable[[], ChildProcess]


@pytest.fixture
def start_dispatcher(start_part: StartPart, hub: PushedHub) -> StartDispatcher:
    """With the command line that `secateur serve` uses."""
    return lambda: start_part(
        "dispatcher",
        SECATEUR_SECRET_KEY="a secret for tests",
        SECATEUR_HUB_ENDPOINT=hub.endpoint,
        SECATEUR_HUB_TOKEN=TOKEN,
        SECATEUR_LEASE_SECONDS="30",
        SECATEUR_DISPATCH_INTERVAL_SECONDS="0.2",
        SECATEUR_RETRY_DELAY_SECONDS="0",
    )


def test_a_dispatcher_that_is_killed_leaves_its_publication_to_the_next(
    api: TestClient,
    publish: Publish,
    hub: PushedHub,
    settings: Settings,
    sessions: sessionmaker[Session],
    start_dispatcher: StartDispatcher,
) -> None:
    hub.hold_after = 1
    made = publish()["id"]
    look = f"/v1/publications/{made}"
    first = start_dispatcher()
    assert eventually(hub.is_holding.is_set), "the second large file is on its way"
    sent = next(iter(hub.objects))
    shown = eventually(lambda: (found := api.get(look).json())["progress"]["bytes"] and found)
    assert shown["status"] == "running" and shown["progress"]["files"] >= 1
    os.killpg(first.pid, signal.SIGKILL)
    with transaction(sessions) as session:  # so long after, that nobody has to wait
        session.execute(update(PublicationRow).values(lease_expires_at=func.now()))
    hub.hold_after = None
    hub.release.set()
    start_dispatcher()
    done = eventually(lambda: (found := api.get(look).json())["finished_at"] and found)
    assert (done["status"], done["attempt"]) == ("succeeded", 2), done["error"]
    assert {path: data for path, data in hub.files("acme/pruned").items() if path in FILES} == FILES
    assert hub.commits_made == 1
    large = {hashlib.sha256(data).hexdigest() for data in FILES.values() if len(data) > 2000}
    assert hub.sent == dict.fromkeys(large, 1) and sent in large, "each large file arrived once"
    assert hub.authorizations == {f"Bearer {USERS_TOKEN}"}
    log = (settings.home / "dispatcher.log").read_text()
    assert "published" in log and USERS_TOKEN not in log


def test_a_publication_that_is_cancelled_stops(
    api: TestClient, publish: Publish, hub: PushedHub, start_dispatcher: StartDispatcher
) -> None:
    hub.hold_after = 1
    made = publish()["id"]
    start_dispatcher()
    assert eventually(hub.is_holding.is_set)
    assert api.post(f"/v1/publications/{made}/cancel").json()["status"] == "cancelled"
    hub.hold_after = None
    hub.release.set()
    again = publish()["id"]
    done = eventually(lambda: (found := api.get(f"/v1/publications/{again}").json())["finished_at"] and found)
    assert done["status"] == "succeeded"
    assert (hub.commits_made, api.get(f"/v1/publications/{made}").json()["status"]) == (1, "cancelled")
