"""Every change leaves a trace: who, what, to what, in which request."""

from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.jobs.tables import JobRow
from core.service.teams.administration import set_limits
from tests.conftest import bearer

Sessions = sessionmaker[Session]


def audit(api: TestClient, **params: Any) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = api.get("/v1/audit", params=params).json()["data"]
    return entries


def test_what_is_done_to_a_job_is_noted_once_with_key_and_request(
    api: TestClient, member_key: str, job_body: dict[str, Any]
) -> None:
    asked = {**bearer(member_key), "X-Request-Id": "asked-1", "Idempotency-Key": "once"}
    job, same = (api.post("/v1/jobs", json=job_body, headers=asked).json()["id"] for _ in range(2))
    assert job == same
    for _ in range(2):
        api.post(f"/v1/jobs/{job}/cancel", headers=bearer(member_key))
    for _ in range(2):
        api.post(f"/v1/jobs/{job}/retry", headers=bearer(member_key))
    entries = audit(api, object_id=job)
    assert [entry["action"] for entry in entries] == ["job.retry", "job.cancel", "job.submit"]
    member = next(key["id"] for key in api.get("/v1/keys").json()["data"] if key["role"] == "member")
    assert {entry["key_id"] for entry in entries} == {member}
    assert (entries[-1]["request_id"], entries[-1]["address"]) == ("asked-1", "testclient")
    assert entries[-1]["details"] == {"model": "tiny", "method": "wanda", "queue": "default"}


def test_what_fails_leaves_no_trace(api: TestClient, job_body: dict[str, Any], sessions: Sessions) -> None:
    job = api.post("/v1/jobs", json=job_body).json()["id"]
    before = len(audit(api))
    assert api.post("/v1/jobs", json={**job_body, "method": "nonsense"}).status_code == 422
    with transaction(sessions) as session:
        session.execute(update(JobRow).values(status="succeeded"))
    assert api.post(f"/v1/jobs/{job}/cancel").status_code == 409
    assert api.post(f"/v1/jobs/{job}/retry").status_code == 409
    assert len(audit(api)) == before


def test_keys_are_noted_without_their_secrets(api: TestClient) -> None:
    key = api.post("/v1/keys", json={"name": "ci"}).json()
    successor = api.post(f"/v1/keys/{key['id']}/rotate", json={"grace_seconds": 5}).json()
    for _ in range(2):
        api.delete(f"/v1/keys/{key['id']}")
    answer = api.get("/v1/audit", params={"object_id": key["id"]})
    assert [entry["action"] for entry in answer.json()["data"]] == ["key.revoke", "key.rotate", "key.create"]
    assert answer.json()["data"][1]["details"] == {"successor": successor["id"], "grace_seconds": 5}
    everything = api.get("/v1/audit").text
    assert key["key"] not in everything and successor["key"] not in everything


@pytest.mark.usefixtures("model", "dataset")
def test_the_operators_changes_have_no_key(api: TestClient, sessions: Sessions, team: str) -> None:
    with transaction(sessions) as session:
        set_limits(session, "gardeners", {"max_running": 4, "weight": 2})
        set_limits(session, "gardeners", {"max_running": 4})
    (entry,) = audit(api, action="team.set")
    assert (entry["key_id"], entry["object_id"]) == (None, team)
    assert entry["details"] == {"max_running": [None, 4], "weight": [1.0, 2]}
    assert {each["action"] for each in audit(api)} >= {"model.register", "dataset.register"}


def test_the_trail_is_read_in_pages(api: TestClient) -> None:
    for number in range(5):
        api.post("/v1/keys", json={"name": f"key {number}"})
    names: list[str] = []
    page: dict[str, Any] = {"has_more": True, "next_after": None}
    while page["has_more"]:
        after = {} if page["next_after"] is None else {"after": page["next_after"]}
        page = api.get("/v1/audit", params={"action": "key.create", "limit": 2, **after}).json()
        names += [entry["details"]["name"] for entry in page["data"]]
    assert names == ["key 4", "key 3", "key 2", "key 1", "key 0", "admin"]
    assert api.get("/v1/audit", params={"after": "nonsense"}).json()["param"] == "after"
