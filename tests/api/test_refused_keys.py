"""Calls with a key that is none leave a trace, and many leave a count."""

from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session, sessionmaker
from typer.testing import CliRunner

from api.app import create_app
from api.http.refused_keys import EACH, MANY, MOST_ADDRESSES, RefusedKeys
from core.database import transaction
from core.service.teams.audit import list_refusals
from core.service.teams.tokens import new_token
from core.settings import Settings
from secateur.cli import app
from tests.conftest import bearer
from worker.cli import register

Sessions = sessionmaker[Session]


def refusals(sessions: Sessions) -> list[tuple[str | None, dict[str, Any]]]:
    """Return the refusals of no team's keys, the oldest first."""
    with transaction(sessions) as session:
        return [(entry.address, entry.details) for entry in reversed(list_refusals(session, limit=200))]


def test_a_revoked_key_is_in_its_teams_trail_and_an_unknown_one_in_the_operators(
    api: TestClient, sessions: Sessions, other_team_key: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = api.post("/v1/keys", json={"name": "old"}).json()
    api.delete(f"/v1/keys/{key['id']}")
    asked = bearer(key["key"]) | {"X-Request-Id": "asked-1"}
    assert api.get("/v1/team", headers=asked).status_code == 401
    assert api.post("/portal/sign-in", data={"key": key["key"]}).status_code == 401
    entries = api.get("/v1/audit", params={"action": "key.refused"}).json()["data"]
    assert [(each["actor"], each["object_id"], each["address"]) for each in entries] == 2 * [
        ("nobody", key["id"], "testclient")
    ]
    assert entries[1]["request_id"] == "asked-1" and "revoked" in entries[1]["details"]["reason"]
    unknown = new_token()
    assert api.get("/v1/team", headers=bearer(unknown)).status_code == 401
    assert api.get("/v1/team", headers={"Authorization": ""}).status_code == 401  # no key at all: none is refused
    assert refusals(sessions) == [("testclient", {"reason": "this API key is not known", "count": 1})]
    for headers in ({}, bearer(other_team_key)):
        shown = api.get("/v1/audit", headers=headers).text
        assert unknown not in shown and "not known" not in shown
    monkeypatch.setenv("SECATEUR_HOME", str(settings.home))
    monkeypatch.setenv("SECATEUR_DATABASE_URL", str(settings.database_url))
    register(app)
    said = CliRunner().invoke(app, ["teams", "refused"])
    assert "this API key is not known" in said.stdout and "testclient" in said.stdout and unknown not in said.stdout


def test_of_many_a_few_are_rows_and_the_rest_a_count(sessions: Sessions) -> None:
    refused = RefusedKeys(sessions)
    for _ in range(100):
        refused.note("192.0.2.1", "guess", "wrong")
    refused.flush()  # the minute is not over
    assert refusals(sessions) == EACH * [("192.0.2.1", {"reason": "wrong", "count": 1})]
    refused.flush(everything=True)
    assert refusals(sessions)[EACH:] == [("192.0.2.1", {"reason": MANY, "count": 100 - EACH})]


def test_guesses_from_everywhere_are_counted_together(sessions: Sessions) -> None:
    refused = RefusedKeys(sessions)
    for number in range(1000):
        refused.note(f"2001:db8::{number:x}", "guess", "wrong")
    refused.flush(everything=True)
    found = refusals(sessions)
    assert len(found) == MOST_ADDRESSES + 1
    assert found[-1] == (None, {"reason": MANY, "count": 1000 - MOST_ADDRESSES})


def test_counts_are_written_when_the_api_ends(settings: Settings, sessions: Sessions) -> None:
    with TestClient(create_app(settings)) as client:
        for _ in range(EACH + 3):
            client.get("/v1/team", headers=bearer("sct_wrong"))
    assert refusals(sessions)[-1][1] == {"reason": MANY, "count": 3}
