from datetime import UTC, datetime, timedelta
from itertools import chain, cycle
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, update
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
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
        "",
        "Bearer",
        "Bearer ",
        "Bearer nonsense",
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


def test_every_route_but_health_and_documents_needs_a_key(api_client: TestClient) -> None:
    document = api_client.get("/openapi.json").json()
    for path, operations in document["paths"].items():
        for method in operations:
            if path not in (
                "/healthz",
                "/readyz",
                "/metrics",
                "/.well-known/secateur-signing-keys",
                "/v1/hooks/{token}",
                "/v1/workload-keys",
            ):  # the last two have their secret in the path, and in the body
                filled = path.replace("{job_id}", "job_1").replace("{path}", "a").replace("{name}", "a")
                response = api_client.request(method, filled.replace("{key_id}", "key_1"))
                assert response.status_code == 401, (method, path)


def test_an_expired_key_says_so(api: TestClient, sessions: Sessions) -> None:
    soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    created = api.post("/v1/keys", json={"name": "short", "role": "viewer", "expires_at": soon}).json()
    assert api.get("/v1/jobs", headers=bearer(created["key"])).status_code == 200
    with transaction(sessions) as session:
        session.execute(update(ApiKeyRow).where(ApiKeyRow.id == created["id"]).values(expires_at=datetime.now(UTC)))
    response = api.get("/v1/jobs", headers=bearer(created["key"]))
    assert response.status_code == 401 and "expired" in response.json()["detail"]


def test_a_key_is_not_born_expired(api: TestClient) -> None:
    response = api.post("/v1/keys", json={"name": "old", "expires_at": "2020-01-01T00:00:00Z"})
    assert (response.status_code, response.json()["param"]) == (422, "expires_at")
    naive = api.post("/v1/keys", json={"name": "old", "expires_at": "2030-01-01T00:00:00"})
    assert (naive.status_code, naive.json()["param"]) == (422, "expires_at")


def test_a_revoked_key_opens_nothing(api: TestClient) -> None:
    created = api.post("/v1/keys", json={"name": "a", "role": "admin"}).json()
    revoked = [api.delete(f"/v1/keys/{created['id']}").json()["revoked_at"] for _ in range(2)]
    assert revoked[0] is not None and revoked[0] == revoked[1]
    response = api.get("/v1/jobs", headers=bearer(created["key"]))
    assert response.status_code == 401 and "revoked" in response.json()["detail"]


def test_a_key_is_shown_once_and_kept_as_hmac(api: TestClient, sessions: Sessions) -> None:
    created = api.post("/v1/keys", json={"name": "a"}).json()
    listed = next(key for key in api.get("/v1/keys").json()["data"] if key["id"] == created["id"])
    assert "key" not in listed and created["key"].startswith(listed["prefix"])
    with transaction(sessions) as session:
        row = session.scalars(select(ApiKeyRow).where(ApiKeyRow.id == created["id"])).one()
        assert created["key"].encode() not in row.digest and len(row.digest) == 32


def test_last_use_is_noted(api: TestClient) -> None:
    created = api.post("/v1/keys", json={"name": "a", "role": "viewer"}).json()
    assert created["last_used_at"] is None
    api.get("/v1/jobs", headers=bearer(created["key"]))
    used = {key["id"]: key["last_used_at"] for key in api.get("/v1/keys").json()["data"]}
    assert used[created["id"]] is not None


def test_a_mistyped_key_is_told_by_its_checksum() -> None:
    token = new_token()
    assert token.startswith(prefix_of(token) or "-")
    assert prefix_of(token[:-1] + ("a" if token[-1] != "a" else "b")) is None


def test_roles_are_enforced(
    api_client: TestClient, viewer_key: str, member_key: str, admin_key: str, job_body: dict[str, Any]
) -> None:
    job = api_client.post("/v1/jobs", json=job_body, headers=bearer(member_key)).json()["id"]
    allowed: dict[str, list[tuple[str, str, Any, int]]] = {
        "viewer": [("GET", f"/v1/jobs/{job}", None, 200), ("POST", "/v1/models/inspect", {"model": "tiny"}, 200)],
        "member": [("POST", "/v1/jobs", job_body, 201), ("POST", f"/v1/jobs/{job}/cancel", None, 200)],
        "admin": [
            ("GET", "/v1/keys", None, 200),
            ("POST", "/v1/keys", {"name": "a"}, 201),
            ("DELETE", "/v1/keys/key_1", None, 404),
            ("POST", "/v1/models", {"name": "a", "path": "/a"}, 422),
            ("POST", "/v1/datasets", {"name": "a", "path": "/a"}, 422),
        ],
    }
    keys = {"viewer": viewer_key, "member": member_key, "admin": admin_key}
    for rank, role in enumerate(allowed):
        for method, path, body, answer in allowed[role]:
            for asked_rank, asking in enumerate(keys):
                response = api_client.request(method, path, json=body, headers=bearer(keys[asking]))
                wanted = 403 if asked_rank < rank else answer
                assert response.status_code == wanted, (asking, method, path, response.text)


def test_another_teams_objects_are_not_found(api: TestClient, other_team_key: str, job_body: dict[str, Any]) -> None:
    job = api.post("/v1/jobs", json=job_body).json()["id"]
    key = api.post("/v1/keys", json={"name": "a"}).json()["id"]
    other = bearer(other_team_key)
    for method, path in [
        ("GET", f"/v1/jobs/{job}"),
        ("POST", f"/v1/jobs/{job}/cancel"),
        ("POST", f"/v1/jobs/{job}/retry"),
        ("GET", f"/v1/jobs/{job}/events"),
        ("GET", f"/v1/jobs/{job}/report"),
        ("GET", f"/v1/jobs/{job}/artifacts"),
        ("GET", f"/v1/jobs/{job}/artifacts/config.json"),
        ("GET", "/v1/models/tiny"),
        ("GET", "/v1/datasets/numbers"),
        ("DELETE", f"/v1/keys/{key}"),
    ]:
        response = api.request(method, path, headers=other)
        assert (response.status_code, response.json()["code"]) == (404, "not_found"), (method, path)
    stream = api.get(f"/v1/jobs/{job}/events", headers=other | {"Accept": "text/event-stream"})
    assert stream.status_code == 404
    for path in ("/v1/jobs", "/v1/models", "/v1/datasets"):
        assert api.get(path, headers=other).json()["data"] == []
    assert job not in api.get("/v1/jobs", headers=other).text
    assert api.post("/v1/jobs", json=job_body, headers=other).json()["code"] == "unknown_model"
    assert api.get(f"/v1/jobs/{job}").json()["status"] == "queued"


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
