"""Artifacts pushed to the hub by its real client: every byte arrives, with the user's token and nobody else's."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text, update
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.pipeline.reports.manifest import finalise
from core.pipeline.reports.report import Report
from core.service.publications import queue
from core.service.publications.service import sealed
from core.service.publications.tables import PublicationRow
from core.settings import Settings
from core.signing import new_private_key, public_key, read_signer
from core.storage import Store
from secateur.verification import verify_artifact
from secateur_wire.provenance import PROVENANCE
from tests.api.ended_job import succeeded_job
from tests.client.test_verification import REPORT
from tests.publications.conftest import FILES, USERS_TOKEN, Publish
from tests.publications.pushable_hub import PushedHub
from tests.recipes import recipe_of

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of the hub's own client

Sessions = sessionmaker[Session]
CarryOut = Callable[[str], dict[str, Any]]
TOTAL = sum(map(len, FILES.values()))


def test_every_file_arrives_and_the_card_is_the_readme(hub: PushedHub, publish: Publish, carry_out: CarryOut) -> None:
    asked = publish(message="Half of it")
    assert (asked["status"], asked["private"], asked["progress"]["bytes_total"]) == ("queued", True, TOTAL)
    done = carry_out(asked["id"])
    assert (done["status"], done["error"], done["attempt"]) == ("succeeded", None, 1)
    assert done["progress"] == {"files": len(FILES), "files_total": len(FILES), "bytes": TOTAL, "bytes_total": TOTAL}
    there = hub.files("acme/pruned")
    assert {path: data for path, data in there.items() if path != ".gitattributes"} == FILES
    assert b"Perplexity rose" in there["README.md"]
    repository = hub.repositories["model", "acme/pruned"]
    assert repository.private and done["result"]["commit"] == repository.branches["main"]
    assert done["result"]["url"] == f"{hub.endpoint}/acme/pruned/commit/{done['result']['commit']}"
    assert hub.messages == ["Half of it"]
    assert hub.authorizations == {f"Bearer {USERS_TOKEN}"}, "the server's own token stays out of it"
    assert not hub.token_seen_elsewhere


def test_an_artifact_from_the_hub_still_proves_itself(
    hub: PushedHub, api: TestClient, sessions: Sessions, store: Store, model: str, tmp_path: Path, carry_out: CarryOut
) -> None:
    (key := tmp_path / "key").write_text(new_private_key())
    (signed := tmp_path / "signed").mkdir()
    (signed / "model.safetensors").write_bytes(b"weights")
    recipe, report = recipe_of("wanda"), Report.model_validate(REPORT)
    finalise(signed, recipe=recipe, body=recipe.body(), report=report, signer=read_signer(key))
    files = {path.name: path.read_bytes() for path in signed.iterdir()}
    job = succeeded_job(api, sessions, store, tmp_path / "artifact", model=model, files=files)
    body = {"to": "hub:acme/signed", "token": USERS_TOKEN}
    asked = api.post(f"/v1/jobs/{job}/publish", json=body).raise_for_status().json()
    assert carry_out(asked["id"])["status"] == "succeeded"
    there = hub.files("acme/signed")
    assert ".gitattributes" in there and PROVENANCE in there
    (fetched := tmp_path / "fetched").mkdir()
    for name, content in there.items():
        (fetched / name).write_bytes(content)
    assert verify_artifact(fetched, [public_key(key).pem]).files == len(files) - 1


def test_what_was_done_when_the_dispatcher_died_is_not_done_twice(
    hub: PushedHub, publish: Publish, carry_out: CarryOut, sessions: Sessions
) -> None:
    """It was killed after the commit, and before it could write so down."""
    asked = publish()
    carry_out(asked["id"])
    with transaction(sessions) as session:
        session.execute(
            update(PublicationRow).values(
                status="running",
                result=None,
                finished_at=None,
                credentials=sealed(b"a secret for tests").seal(json.dumps({"token": USERS_TOKEN})),
                lease_expires_at=text("now() - interval '1 second'"),
            )
        )
    done = carry_out(asked["id"])
    assert (done["status"], done["attempt"], hub.commits_made) == ("succeeded", 2, 1)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"token": "hf_revoked"}, "does not accept the token"),
        ({"to": "hub:umbrella/pruned"}, "may not write to umbrella/pruned"),
    ],
)
def test_what_the_hub_refuses_is_told_as_such(
    hub: PushedHub, publish: Publish, carry_out: CarryOut, changed: dict[str, Any], told: str
) -> None:
    failed = carry_out(publish(**changed)["id"])
    assert (failed["status"], failed["attempt"], failed["result"]) == ("failed", 1, None)
    error = failed["error"]
    assert (error["code"], error["param"], error["retryable"]) == ("destination_refused", "token", False)
    assert told in error["message"] and hub.commits_made == 0


def test_a_hub_that_is_down_is_tried_again_and_in_the_end_given_up(
    hub: PushedHub, publish: Publish, carry_out: CarryOut, sessions: Sessions
) -> None:
    asked = publish()
    hub.refuse_commit = 500
    with transaction(sessions) as session:
        claimed = queue.claim(session, lease_seconds=60)
        assert claimed is not None
        problem = {"code": "destination_unavailable", "message": "down", "param": "to", "retryable": True}
        assert queue.fail(session, claimed, problem, delay_seconds=3600)
    waiting = carry_out(asked["id"])
    assert (waiting["status"], waiting["attempt"], waiting["error"]["code"]) == ("queued", 1, "destination_unavailable")
    with transaction(sessions) as session:
        session.execute(update(PublicationRow).values(available_at=text("now()"), attempt=10))
    failed = carry_out(asked["id"])
    assert (failed["status"], failed["attempt"], failed["error"]["code"]) == ("failed", 12, "destination_unavailable")
    assert "the hub answers 500" in failed["error"]["message"]
    hub.refuse_commit = None
    assert carry_out(publish()["id"])["status"] == "succeeded", "the place is free again"
    assert set(hub.sent.values()) == {1}, "what had arrived was not sent again"


def test_two_that_push_at_once_do_not_overwrite_one_another(
    hub: PushedHub, publish: Publish, carry_out: CarryOut
) -> None:
    asked = publish()
    batch = []

    def somebody_else_commits(path: str) -> None:
        if not batch:
            batch.append(path)
            hub.repositories["model", "acme/pruned"].commit({"theirs.txt": b"1"})

    hub.on_large_file = somebody_else_commits
    done = carry_out(asked["id"])
    assert (done["status"], done["attempt"]) == ("succeeded", 2)
    assert {"theirs.txt", *FILES} == set(hub.files("acme/pruned")), "theirs is kept"


def test_a_damaged_file_is_not_published(
    hub: PushedHub, publish: Publish, carry_out: CarryOut, settings: Settings, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "MOST_ATTEMPTS", 2)
    file = settings.store_root / job / "attempt-1" / "model-00003-of-00003.safetensors"
    file.write_bytes(b"x" * file.stat().st_size)
    asked = publish()
    failed = carry_out(asked["id"])
    assert failed["error"]["code"] == "store_unavailable" and "model-00003" in failed["error"]["message"]
    assert hub.commits_made == 0


def test_an_artifact_that_is_published_is_not_deleted(api: TestClient, publish: Publish, job: str) -> None:
    asked = publish()
    refused = api.delete(f"/v1/jobs/{job}/artifacts")
    assert refused.status_code == 409 and asked["id"] in refused.json()["detail"]
    api.post(f"/v1/publications/{asked['id']}/cancel").raise_for_status()
    assert api.delete(f"/v1/jobs/{job}/artifacts").status_code == 204
