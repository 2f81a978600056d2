"""Calls with a key that is none leave a trace, and many leave a count."""

from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker
from typer.testing import CliRunner

from api.app import create_app
from api.process.refused_keys import EACH, MANY, MOST_NETWORKS, ROWS_AN_HOUR, RefusedKeys
from core.database import transaction
from core.service.teams.administration import set_limits
from core.service.teams.audit import REFUSED, list_refusals
from core.service.teams.tables import AuditRow
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


def refusals_of(sessions: Sessions, team: str | None) -> list[dict[str, Any]]:
    """Return the details of all refusals in a team's trail, the oldest first."""
    with transaction(sessions) as session:
        query = select(AuditRow.details).where(AuditRow.team_id.is_not_distinct_from(team), AuditRow.action == REFUSED)
        return list(session.scalars(query.order_by(AuditRow.created_at, AuditRow.id)))


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
        refused.note(f"2001:db8:0:{number:x}::1", "guess", "wrong")
    refused.flush(everything=True)
    found = refusals(sessions)
    assert len(found) == MOST_NETWORKS + 1
    assert found[-1] == (None, {"reason": MANY, "count": 1000 - MOST_NETWORKS})


def test_the_rows_of_a_day_are_bounded_wherever_guesses_come_from(sessions: Sessions) -> None:
    refused = RefusedKeys(sessions)
    hours, minutes, guesses = 2, 60, 30
    for _ in range(hours):
        for minute in range(minutes):
            for number in range(guesses):
                refused.note(f"198.51.{minute}.{number}", "guess", "wrong")
            for window in refused._windows.values():
                window.ends = 0  # the minute is over
            refused.flush()
        refused._hour.ends = 0
        refused.flush()
    found = refusals_of(sessions, None)
    assert len(found) == hours * (ROWS_AN_HOUR + 1)
    assert sum(details["count"] for details in found) == hours * minutes * guesses, "none is forgotten"


def test_counts_are_written_when_the_api_ends(settings: Settings, sessions: Sessions) -> None:
    with TestClient(create_app(settings)) as client:
        for _ in range(EACH + 3):
            client.get("/v1/team", headers=bearer("sct_wrong"))
    assert refusals(sessions)[-1][1] == {"reason": MANY, "count": 3}


def test_the_operators_changes_have_no_key(api: TestClient, sessions: Sessions, team: str) -> None:
    with transaction(sessions) as session:
        set_limits(session, "gardeners", {"max_running": 4, "weight": 2})
        set_limits(session, "gardeners", {"max_running": 4})
    (entry,) = api.get("/v1/audit", params={"action": "team.set"}).json()["data"]
    assert (entry["key_id"], entry["object_id"]) == (None, team)
    assert entry["details"] == {"max_running": [None, 4], "weight": [1.0, 2]}
