"""A trigger to fire, and what is needed to fire it by clock."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session, sessionmaker

from core.service.jobs.resolution.hub_lookup import HubLookup
from core.service.jobs.schemas import Job
from core.service.teams.server_secret import server_secret
from core.service.triggers.context import TriggerContext
from core.service.triggers.due import fire_due
from core.settings import Settings
from core.storage import Store
from tests.conftest import bearer

COMMIT = {"path": "/commit/sha", "pattern": "[0-9a-f]{7,40}"}


@pytest.fixture
def trigger_body(job_body: dict[str, Any]) -> dict[str, Any]:
    """A trigger whose payload says the commit and may say the sparsity."""
    return {
        "name": "nightly",
        "template": {
            **job_body,
            "sparsity": {"$payload": "sparsity"},
            "metadata": {"commit": "${commit}", "from": "ci/${commit}"},
        },
        "placeholders": {
            "commit": COMMIT,
            "sparsity": {"path": "/sparsity", "type": "number", "default": 0.5, "min": 0.1, "max": 0.9},
        },
    }


PAYLOAD: dict[str, Any] = {"commit": {"sha": "0123abc"}, "sparsity": 0.6}


@dataclass(frozen=True)
class Fixed:
    """A trigger as its team sees it."""

    api: TestClient
    issued: dict[str, Any]

    @property
    def path(self) -> str:
        return f"/v1/triggers/{self.issued['id']}"

    @property
    def url(self) -> str:
        return str(self.issued["url"])

    def hook(self, payload: Any = PAYLOAD, **options: Any) -> Any:
        """Fire it at its URL, without a key."""
        headers = {"Authorization": "", **options.pop("headers", {})}
        body = {"content": payload} if isinstance(payload, bytes) else {"json": payload}
        return self.api.post(self.url, headers=headers, **body, **options)

    def firings(self) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = self.api.get(f"{self.path}/firings").json()["data"]
        return listed

    def jobs(self) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = self.api.get("/v1/jobs").json()["data"]
        return listed


def make_trigger(api: TestClient, body: dict[str, Any], **changes: Any) -> Fixed:
    answer = api.post("/v1/triggers", json=body | changes)
    assert answer.status_code == 201, answer.text
    return Fixed(api, answer.json())


@pytest.fixture
def member_api(api_client: TestClient, member_key: str) -> TestClient:
    """The application, as a member of the team."""
    api_client.headers.update(bearer(member_key))
    return api_client


@pytest.fixture
def trigger(member_api: TestClient, trigger_body: dict[str, Any]) -> Fixed:
    return make_trigger(member_api, trigger_body)


def fire(context: TriggerContext, now: datetime) -> list[Job]:
    """Fire what is due at a moment; the jobs."""
    jobs: list[Job] = []
    fire_due(context, jobs.append, now=now)
    return jobs


@pytest.fixture
def context(settings: Settings, sessions: sessionmaker[Session], store: Store) -> TriggerContext:
    hub = HubLookup(settings, sessions)
    return TriggerContext(sessions, store, settings, hub, server_secret(settings))
