"""Results of an attempt stay the job's through a retry, until another attempt has stored its own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.jobs.queue import claim, finish_cancelled, finish_failed, finish_succeeded, release
from core.service.retention.orphans import sweep_orphans
from core.service.teams.installation import owned
from core.settings import Settings
from core.storage import LocalStore, StoredFile, artifact_prefix
from secateur_wire.errors import GateMissed, OutOfMemory

MISSED = GateMissed("too far").problem()
METRICS = {"bytes": {"dense": 10, "artifact": 5}}
HUB = {"to": "hub:acme/pruned", "token": "hf_token"}

Sessions = sessionmaker[Session]
End = Callable[[Session, str], str | None]


class Shop:
    """The worker's part: attempts that leave weights of their own."""

    def __init__(self, api: TestClient, sessions: Sessions, store: LocalStore, folder: Path, job: str) -> None:
        self.api, self.sessions, self.store, self.folder, self.job = api, sessions, store, folder, job

    def begin(self) -> None:
        with transaction(self.sessions) as session:
            assert claim(session, queue="default", worker_id="worker_1", lease_seconds=60)

    def stored(self, attempt: int) -> list[StoredFile]:
        folder = self.folder / str(attempt)
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"weights of attempt %d" % attempt)
        (folder / "secateur.json").write_text("{}")
        return list(self.store.publish(folder, artifact_prefix(self.job, attempt)))

    def end(self, write: Callable[[Session], str | None]) -> str | None:
        with transaction(self.sessions) as session:
            return write(session)

    def miss(self, attempt: int) -> None:
        self.begin()
        files = self.stored(attempt)
        metrics = METRICS | {"seconds": {"total": attempt}}
        report = {"attempt": attempt}
        write: dict[str, Any] = {"metrics": metrics, "report": report, "files": files}
        assert self.end(lambda session: finish_failed(session, self.job, attempt, MISSED, **write)) == "failed"

    def ask(self, what: str) -> Any:
        return self.api.post(f"/v1/jobs/{self.job}/{what}").raise_for_status().json()

    def shown(self) -> tuple[Any, Any, bytes]:
        """The attempts that metrics and report are of, and the weights that are downloaded."""
        address = f"/v1/jobs/{self.job}"
        metrics = self.api.get(address).json()["metrics"]
        report = self.api.get(f"{address}/report").raise_for_status().json()
        listed = self.api.get(f"{address}/artifacts").json()["data"]
        assert [each["path"] for each in listed] == ["model.safetensors", "secateur.json"]
        weights = self.api.get(f"{address}/artifacts/model.safetensors").raise_for_status().content
        return metrics["seconds"]["total"], report["attempt"], weights

    def used(self) -> int:
        return int(self.api.get("/v1/team").json()["usage"]["stored_bytes"])


FIRST = (1, 1, b"weights of attempt 1")


@pytest.fixture
def shop(api: TestClient, job_body: dict[str, Any], sessions: Sessions, store: LocalStore, tmp_path: Path) -> Shop:
    """A job whose first attempt missed its gate."""
    job = api.post("/v1/jobs", json=job_body).raise_for_status().json()["id"]
    made = Shop(api, sessions, store, tmp_path, job)
    made.miss(1)
    return made


def test_a_retry_that_is_cancelled_while_it_waits_leaves_figures_report_and_files(shop: Shop) -> None:
    before = shop.used()
    shop.ask("retry")
    assert shop.shown() == FIRST
    assert shop.ask("cancel")["status"] == "cancelled"
    assert (shop.shown(), shop.used()) == (FIRST, before)


ENDS: dict[str, End] = {
    "cancelled": lambda session, job: finish_cancelled(session, job, 2),
    "out of memory": lambda session, job: finish_failed(session, job, 2, OutOfMemory("").problem()),
    "given back": lambda session, job: release(session, job, 2),
}


@pytest.mark.parametrize("end", ENDS)
def test_an_attempt_that_leaves_nothing_takes_nothing(
    shop: Shop, store: LocalStore, settings: Settings, sessions: Sessions, end: str
) -> None:
    before = shop.used()
    shop.ask("retry")
    shop.begin()
    assert shop.shown() == FIRST
    if end == "cancelled":
        assert shop.ask("cancel")["status"] == "cancelling"
    assert shop.end(lambda session: ENDS[end](session, shop.job)) is not None
    assert sweep_orphans(sessions, owned(store, sessions), settings.model_copy(update={"orphan_seconds": -60.0})) == []
    assert (shop.shown(), shop.used()) == (FIRST, before)


@pytest.mark.parametrize("kept", [True, False], ids=["succeeds", "misses its gate again"])
def test_the_newer_artifact_takes_the_earlier_ones_place_and_its_files_go(
    shop: Shop, store: LocalStore, settings: Settings, sessions: Sessions, kept: bool
) -> None:
    before = shop.used()
    shop.ask("retry")
    if kept:
        shop.begin()
        write: dict[str, Any] = {"metrics": METRICS | {"seconds": {"total": 2}}, "report": {"attempt": 2}}
        files = shop.stored(2)
        assert shop.end(lambda session: finish_succeeded(session, shop.job, 2, files=files, **write)) == "succeeded"
    else:
        shop.miss(2)
    assert (shop.shown(), shop.used()) == ((2, 2, b"weights of attempt 2"), before)
    swept = sweep_orphans(sessions, owned(store, sessions), settings.model_copy(update={"orphan_seconds": -60.0}))
    assert swept == [artifact_prefix(shop.job, 1)]
    assert shop.shown() == (2, 2, b"weights of attempt 2")


def test_a_stale_attempt_replaces_nothing(shop: Shop) -> None:
    shop.ask("retry")
    shop.begin()
    write: dict[str, Any] = {"metrics": {}, "report": {"attempt": 1}, "files": [StoredFile("x", 1, "00")]}
    assert shop.end(lambda session: finish_succeeded(session, shop.job, 1, **write)) is None
    assert shop.shown() == FIRST


def test_what_is_being_published_is_not_retried_away_and_what_is_retried_not_published(
    api: TestClient, shop: Shop
) -> None:
    publish = f"/v1/jobs/{shop.job}/publish"
    made = api.post(publish, json=HUB | {"despite_gates": True}).raise_for_status().json()["id"]
    refused = api.post(f"/v1/jobs/{shop.job}/retry")
    assert refused.status_code == 409 and made in refused.json()["detail"]
    api.post(f"/v1/publications/{made}/cancel").raise_for_status()
    shop.ask("retry")
    refused = api.post(publish, json=HUB | {"despite_gates": True})
    assert refused.status_code == 409 and "when it has ended" in refused.json()["detail"]
    shop.ask("cancel")
    assert api.post(publish, json=HUB).json()["param"] == "despite_gates"
    api.post(publish, json=HUB | {"despite_gates": True}).raise_for_status()
