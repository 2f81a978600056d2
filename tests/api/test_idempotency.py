from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.jobs.queue import expire_idempotency_keys
from core.service.jobs.tables import IdempotencyKeyRow, JobRow
from core.service.teams.tables import ApiKeyRow
from tests.conftest import bearer

Sessions = sessionmaker[Session]
ONCE = {"Idempotency-Key": "once"}


def jobs(sessions: Sessions) -> int:
    with transaction(sessions) as session:
        return session.scalar(select(func.count()).select_from(JobRow)) or 0


def test_the_same_request_gets_the_first_answer_again(
    api: TestClient, job_body: dict[str, Any], sessions: Sessions
) -> None:
    first = api.post("/v1/jobs", json=job_body, headers=ONCE)
    again = api.post("/v1/jobs", json=job_body, headers=ONCE)
    assert (again.status_code, again.content) == (201, first.content)
    assert "Idempotency-Replayed" not in first.headers and again.headers["Idempotency-Replayed"] == "true"
    assert jobs(sessions) == 1


def test_another_body_is_a_conflict(api: TestClient, job_body: dict[str, Any], sessions: Sessions) -> None:
    api.post("/v1/jobs", json=job_body, headers=ONCE)
    other = api.post("/v1/jobs", json=job_body | {"sparsity": 0.6}, headers=ONCE)
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")
    route = api.post("/v1/keys", json={"name": "a"}, headers=ONCE)
    assert (route.status_code, route.json()["code"]) == (409, "idempotency_conflict")
    assert jobs(sessions) == 1


def test_racing_requests_create_once(live_api: httpx.Client, job_body: dict[str, Any], sessions: Sessions) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: live_api.post("/v1/jobs", json=job_body, headers=ONCE), range(8)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert jobs(sessions) == 1


def test_an_error_is_not_remembered(api: TestClient, job_body: dict[str, Any], sessions: Sessions) -> None:
    assert api.post("/v1/jobs", json=job_body | {"method": "snip"}, headers=ONCE).status_code == 422
    assert api.post("/v1/jobs", json=job_body, headers=ONCE).status_code == 201
    assert jobs(sessions) == 1


def test_keys_belong_to_a_team(api: TestClient, other_team_key: str) -> None:
    """Each team's later request gets its own first answer."""

    def ask(headers: dict[str, str]) -> httpx.Response:
        return api.post("/v1/keys", json={"name": "a"}, headers=ONCE | headers)

    teams: tuple[dict[str, str], ...] = ({}, bearer(other_team_key))
    first = [ask(team) for team in teams]
    again = [ask(team) for team in teams]
    assert [answer.status_code for answer in first] == [201, 201] and first[0].json()["id"] != first[1].json()["id"]
    assert [answer.content for answer in again] == [answer.content for answer in first]


def test_a_replayed_api_key_is_whole_and_stored_nowhere_in_the_clear(api: TestClient, sessions: Sessions) -> None:
    first = api.post("/v1/keys", json={"name": "a"}, headers=ONCE).json()
    assert api.post("/v1/keys", json={"name": "a"}, headers=ONCE).json() == first
    with transaction(sessions) as session:
        stored = session.scalars(select(IdempotencyKeyRow.answer)).one()
        assert stored is not None and first["key"][12:].encode() not in stored
        assert session.scalar(select(func.count()).select_from(ApiKeyRow)) == 2


def test_keys_past_their_time_are_forgotten_a_batch_at_a_time_and_none_whose_request_is_being_answered(
    api: TestClient, job_body: dict[str, Any], sessions: Sessions, team: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.service.jobs.idempotency.EXPIRED_AT_ONCE", 2)
    api.post("/v1/jobs", json=job_body, headers=ONCE)
    with transaction(sessions) as session:
        assert expire_idempotency_keys(session) == 0
        session.execute(update(IdempotencyKeyRow).values(expires_at=func.now()))
    api.post("/v1/jobs", json=job_body, headers=ONCE)
    assert jobs(sessions) == 2
    rows = [
        IdempotencyKeyRow(team_id=team, key_hash=bytes([number]), request_hash=b"", expires_at=func.now())
        for number in range(4)
    ]
    with transaction(sessions) as session:
        session.add_all(rows)
    with transaction(sessions) as answering:
        answering.execute(select(IdempotencyKeyRow).where(IdempotencyKeyRow.key_hash == bytes([1])).with_for_update())
        for expected in (2, 1, 0):
            with transaction(sessions) as session:
                assert expire_idempotency_keys(session) == expected
    with transaction(sessions) as session:
        assert expire_idempotency_keys(session) == 1
