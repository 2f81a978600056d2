"""Credentials are nowhere in the clear: no table, log, answer or event, while a publication is on its way or after."""

from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.publications.run import publish_waiting
from core.service.publications.service import sealed
from core.service.publications.tables import PublicationRow
from core.settings import Settings
from tests.publications.conftest import USERS_TOKEN, Publish
from tests.publications.pushable_hub import PushedHub
from tests.sources.conftest import stored_rows

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of the hub's own client

Sessions = sessionmaker[Session]


@pytest.mark.parametrize("ends", ["failed", "cancelled"])
def test_the_token_is_nowhere_in_the_clear(
    api: TestClient,
    sessions: Sessions,
    settings: Settings,
    hub: PushedHub,
    job: str,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    ends: str,
) -> None:
    caplog.set_level("DEBUG")
    if ends == "failed":
        hub.writers.clear()
    asked = {"to": "hub:acme/pruned", "token": USERS_TOKEN}
    path = f"/v1/jobs/{job}/publish"
    answers = [api.post(path, json=asked, headers={"Idempotency-Key": "k"}) for _ in range(2)]
    answers.append(api.post(path, json={**asked, "to": "nowhere"}))
    answers.append(api.post(path, json={**asked, "access_key": USERS_TOKEN}))
    made = answers[0].json()["id"]
    with transaction(sessions) as session:
        kept = session.get_one(PublicationRow, made).credentials
    assert kept is not None and USERS_TOKEN in sealed(b"a secret for tests").open(kept), "kept, and sealed"
    assert not [row for row in stored_rows(sessions) if USERS_TOKEN in row]
    if ends == "cancelled":
        api.post(f"/v1/publications/{made}/cancel").raise_for_status()
    publish_waiting(sessions, settings)
    for where in (f"/v1/publications/{made}", f"/v1/jobs/{job}/publications", "/v1/audit", f"/v1/jobs/{job}/events"):
        answers.append(api.get(where).raise_for_status())
    assert answers[4].json()["status"] == ends
    with transaction(sessions) as session:
        assert session.get_one(PublicationRow, made).credentials is None, "erased"
    told: list[str] = [answer.text for answer in answers]
    told += [caplog.text, *capfd.readouterr(), *_files(settings.home), *stored_rows(sessions)]
    assert not [text for text in told if USERS_TOKEN in text]


def test_an_unexpected_error_quotes_nothing(
    api: TestClient,
    sessions: Sessions,
    settings: Settings,
    publish: Publish,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def fail(*args: Any, token: str, **kwargs: Any) -> Any:
        raise RuntimeError(f"could not send {token}")

    monkeypatch.setattr("core.service.publications.to_hub.publish_to_hub", fail)
    made = publish()["id"]
    publish_waiting(sessions, settings)
    failed = api.get(f"/v1/publications/{made}").json()
    assert (failed["status"], failed["error"]["code"]) == ("failed", "internal_error")
    logged = capfd.readouterr().err
    assert "RuntimeError" in logged and USERS_TOKEN not in logged + str(failed)


def _files(home: Path) -> list[str]:
    return [file.read_bytes().decode(errors="replace") for file in home.rglob("*") if file.is_file()]
