from datetime import UTC, datetime
from itertools import chain, cycle

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
