"""Keys: what they open, and their life: rotated with a grace, expired, revoked, and never all of them."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import chain, cycle
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, update
from sqlalchemy.orm import Session, sessionmaker

from core.database import seconds_from_now, transaction
from core.service.teams.bootstrap import bootstrap
from core.service.teams.keys import authenticate
from core.service.teams.tables import ApiKeyRow
from core.service.teams.tokens import new_token, prefix_of
from core.settings import Settings
from tests.conftest import bearer

Sessions = sessionmaker[Session]


@pytest.mark.parametrize(
    "header",
    [
        None,
        "Bearer ",
        "Basic abc",
        pytest.param(f"Bearer {new_token()}", id="Bearer unknown"),
        "Bearer sct_ü",
    ],
)
def test_without_a_valid_key_nothing_is_shown(api_client: TestClient, header: str | None) -> None:
    headers = {} if header is None else {b"Authorization": header.encode("latin-1")}
    response = api_client.get("/v1/jobs", headers=headers)
    assert response.status_code == 401
    assert response.json()["code"] == "unauthenticated"
    assert response.headers["WWW-Authenticate"].startswith("Bearer")


def test_the_part_of_a_key_that_lists_show_opens_nothing(
    api_client: TestClient, admin_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A well-formed key that begins as a good one does."""
    characters = chain(admin_key[4:12], cycle("a"))
    with monkeypatch.context() as patched:
        patched.setattr("core.service.teams.tokens.secrets.choice", lambda alphabet: next(characters))
        forged = new_token()
    assert prefix_of(forged) == prefix_of(admin_key) and forged != admin_key
    response = api_client.get("/v1/jobs", headers=bearer(forged))
    assert response.status_code == 401 and "not known" in response.json()["detail"]
    assert api_client.get("/v1/jobs", headers=bearer(admin_key)).status_code == 200


@pytest.mark.parametrize("moment", ["2020-01-01T00:00:00Z", "2030-01-01T00:00:00"], ids=["past", "without a zone"])
def test_a_key_is_not_born_expired(api: TestClient, moment: str) -> None:
    response = api.post("/v1/keys", json={"name": "old", "expires_at": moment})
    assert (response.status_code, response.json()["param"]) == (422, "expires_at")


def test_a_key_is_shown_once_and_kept_as_hmac(api: TestClient, sessions: Sessions) -> None:
    created = api.post("/v1/keys", json={"name": "a"}).json()
    listed = next(key for key in api.get("/v1/keys").json()["data"] if key["id"] == created["id"])
    assert "key" not in listed and created["key"].startswith(listed["prefix"])
    with transaction(sessions) as session:
        row = session.scalars(select(ApiKeyRow).where(ApiKeyRow.id == created["id"])).one()
        assert created["key"].encode() not in row.digest and len(row.digest) == 32


def test_the_first_key_is_kept_while_it_is_valid(settings: Settings, sessions: Sessions) -> None:
    file = settings.home / "api-key"
    with transaction(sessions) as session:
        bootstrap(session, settings)
    first = file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    with transaction(sessions) as session:
        bootstrap(session, settings)
        assert file.read_text() == first
        assert settings.secret_key is not None
        secret = settings.secret_key.encode()
        assert authenticate(session, first.strip(), secret).role == "admin"
        session.execute(update(ApiKeyRow).values(revoked_at=datetime.now(UTC)))
        bootstrap(session, settings)
        assert file.read_text() != first


def make(api: TestClient, **body: Any) -> dict[str, Any]:
    created: dict[str, Any] = api.post("/v1/keys", json={"name": "ci", "role": "viewer", **body}).json()
    return created


def rotate(api: TestClient, key_id: str, **body: Any) -> Any:
    return api.post(f"/v1/keys/{key_id}/rotate", json=body)


def opens(api: TestClient, key: str) -> bool:
    status = api.get("/v1/jobs", headers=bearer(key)).status_code
    assert status in (200, 401)
    return status == 200


def listed(api: TestClient) -> dict[str, dict[str, Any]]:
    return {key["id"]: key for key in api.get("/v1/keys").json()["data"]}


def move_back(sessions: Sessions, key_id: str, seconds: float) -> None:
    """Move the key's expiry so many seconds into the past."""
    with transaction(sessions) as session:
        earlier = ApiKeyRow.expires_at + (seconds_from_now(-seconds) - seconds_from_now(0))
        session.execute(update(ApiKeyRow).where(ApiKeyRow.id == key_id).values(expires_at=earlier))


def test_the_old_key_works_within_the_grace_and_not_after(api: TestClient, sessions: Sessions) -> None:
    old = make(api, name="pipeline", role="member")
    answer = rotate(api, old["id"], grace_seconds=60)
    new = answer.json()
    assert answer.status_code == 201
    assert (new["name"], new["role"], new["expires_at"], new["state"]) == ("pipeline", "member", None, "active")
    assert new["id"] != old["id"] and new["key"] != old["key"]
    assert opens(api, old["key"]) and opens(api, new["key"])
    move_back(sessions, old["id"], 59)
    assert opens(api, old["key"])
    move_back(sessions, old["id"], 1)
    assert not opens(api, old["key"]) and opens(api, new["key"])
    assert {listed(api)[key["id"]]["state"] for key in (old, new)} == {"expired", "active"}


def test_a_rotation_is_answered_once_per_idempotency_key(api: TestClient) -> None:
    old = make(api)
    once = {"Idempotency-Key": "once"}
    answers = [api.post(f"/v1/keys/{old['id']}/rotate", json={}, headers=once).json() for _ in range(2)]
    assert answers[0] == answers[1]
    assert sum(key["name"] == "ci" for key in listed(api).values()) == 2


def test_without_a_grace_the_old_key_ends_at_once(api: TestClient) -> None:
    old = make(api)
    new = rotate(api, old["id"], grace_seconds=0).json()
    assert not opens(api, old["key"]) and opens(api, new["key"])
    again = rotate(api, old["id"], grace_seconds=0)
    assert (again.status_code, again.json()["code"]) == (409, "conflict") and "expired" in again.json()["detail"]


def test_a_rotation_gives_no_key_a_longer_life_than_it_was_given(api: TestClient) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    old = make(api, expires_at=soon.isoformat())
    new = rotate(api, old["id"], grace_seconds=24 * 3600).json()
    lives = datetime.fromisoformat(new["expires_at"]) - datetime.fromisoformat(new["created_at"])
    assert lives <= timedelta(hours=1)
    assert datetime.fromisoformat(listed(api)[old["id"]]["expires_at"]) == soon


def test_the_last_admin_key_cannot_be_revoked(api: TestClient, sessions: Sessions) -> None:
    own = next(iter(listed(api)))
    expired = make(api, role="admin", expires_at=(datetime.now(UTC) + timedelta(hours=1)).isoformat())
    make(api, role="member")
    move_back(sessions, expired["id"], 3600)
    refused = api.delete(f"/v1/keys/{own}")
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    successor = make(api, role="admin")
    assert api.delete(f"/v1/keys/{own}").json()["state"] == "revoked"
    assert api.get("/v1/keys").status_code == 401
    api.headers.update(bearer(successor["key"]))
    assert api.delete(f"/v1/keys/{successor['id']}").status_code == 409


def test_of_two_admins_who_revoke_each_other_at_once_one_stays(live_api: httpx.Client) -> None:
    first = next(key["id"] for key in live_api.get("/v1/keys").json()["data"])
    for _ in range(5):
        created = live_api.post("/v1/keys", json={"name": "second", "role": "admin"}).json()
        keys = {first: live_api.headers["Authorization"], created["id"]: f"Bearer {created['key']}"}

        def revoke(pair: tuple[str, str]) -> int:
            key_id, authorization = pair
            return live_api.delete(f"/v1/keys/{key_id}", headers={"Authorization": authorization}).status_code

        pairs = [(created["id"], keys[first]), (first, keys[created["id"]])]
        with ThreadPoolExecutor(2) as pool:
            answers = sorted(pool.map(revoke, pairs))
        assert answers in ([200, 401], [200, 409])
        if live_api.get("/v1/keys").status_code == 401:
            live_api.headers["Authorization"], first = keys[created["id"]], created["id"]
