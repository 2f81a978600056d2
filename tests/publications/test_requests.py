"""What can be asked of publications, and by whom."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import delete, text, update
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.jobs.tables import ArtifactFileRow, JobRow
from core.service.publications.run import publish_waiting
from core.service.publications.tables import PublicationRow
from core.settings import Settings
from tests.publications.conftest import USERS_TOKEN, Publish

Sessions = sessionmaker[Session]
HUB = {"to": "hub:acme/pruned", "token": USERS_TOKEN}
S3 = {"to": "s3://bucket/prefix", "access_key": "AKIA", "secret_key": "secret"}

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "neither hub nor bucket": ({"to": "https://example.com/x", "token": "t"}, "to"),
    "no token": ({"to": "hub:acme/pruned"}, "token"),
    "a token that breaks a header": ({**HUB, "token": "hf_x\r\nHost: evil"}, "token"),
    "a commit for a branch": ({**HUB, "revision": "0" * 40}, "revision"),
    "a branch that climbs": ({**HUB, "revision": "a/../b"}, "revision"),
    "a line break in the message": ({**HUB, "message": "a\nb"}, "message"),
    "a token for a bucket": ({**S3, "token": USERS_TOKEN}, "token"),
    "a bucket with credentials in its address": ({**S3, "to": "s3://AKIA:secret@bucket/x"}, "to"),
    "a prefix that climbs": ({**S3, "to": "s3://bucket/a/../b"}, "to"),
    "a region that is a host": ({**S3, "region": "evil.example/"}, "region"),
    "an address in the network": ({**S3, "endpoint": "http://169.254.169.254"}, "endpoint"),
    "an address of another service": ({**S3, "endpoint": "https://s3.example.com"}, "endpoint"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_a_destination_is_refused_by_name_and_never_quoted(api: TestClient, job: str, case: str) -> None:
    body, param = REFUSED[case]
    refused = api.post(f"/v1/jobs/{job}/publish", json=body)
    assert (refused.status_code, refused.json()["param"]) == (422, param), refused.text
    assert not any(each in refused.text for each in ("secret@", USERS_TOKEN, "evil", "169.254"))
    assert api.get(f"/v1/jobs/{job}/publications").json()["data"] == []


def test_only_what_succeeded_has_an_artifact_to_publish(
    api: TestClient, job: str, job_body: dict[str, Any], sessions: Sessions, publish: Publish
) -> None:
    waiting = api.post("/v1/jobs", json=job_body).json()["id"]
    refused = api.post(f"/v1/jobs/{waiting}/publish", json=HUB)
    assert (refused.status_code, refused.json()["code"]) == (409, "no_artifact")
    missed = {"code": "gate_missed", "message": "too far", "param": None, "retryable": False}
    with transaction(sessions) as session:
        session.execute(update(JobRow).where(JobRow.id == job).values(status="failed", error=missed))
    refused = api.post(f"/v1/jobs/{job}/publish", json=HUB)
    assert (refused.status_code, refused.json()["param"]) == (409, "despite_gates")
    assert publish(despite_gates=True)["status"] == "queued"
    with transaction(sessions) as session:
        session.execute(delete(ArtifactFileRow).where(ArtifactFileRow.job_id == job))
        session.execute(update(JobRow).where(JobRow.id == job).values(error={**missed, "code": "out_of_memory"}))
    refused = api.post(f"/v1/jobs/{job}/publish", json={**HUB, "despite_gates": True})
    assert refused.status_code == 409 and "left no artifact to publish" in refused.json()["detail"]


def test_of_several_publications_at_once_to_one_place_one_is_taken(api: TestClient, job: str, publish: Publish) -> None:
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: api.post(f"/v1/jobs/{job}/publish", json=HUB), range(4)))
    [first] = [answer.json() for answer in answers if answer.is_success]
    refused = [answer for answer in answers if not answer.is_success]
    assert all(each.status_code == 409 and first["id"] in each.json()["detail"] for each in refused)
    others = [publish(revision="other"), publish(to="hub:acme/elsewhere")]
    listed = api.get(f"/v1/jobs/{job}/publications").json()["data"]
    assert [each["id"] for each in listed] == [others[1]["id"], others[0]["id"], first["id"]]


def test_after_a_day_it_is_given_up_and_its_credentials_go(
    api: TestClient, publish: Publish, sessions: Sessions, settings: Settings
) -> None:
    made = publish()["id"]
    with transaction(sessions) as session:
        session.execute(update(PublicationRow).values(expires_at=text("now() - interval '1 second'")))
    publish_waiting(sessions, settings)
    given_up = api.get(f"/v1/publications/{made}").json()
    assert (given_up["status"], given_up["error"]["code"]) == ("failed", "publication_expired")
    with transaction(sessions) as session:
        assert session.get_one(PublicationRow, made).credentials is None
