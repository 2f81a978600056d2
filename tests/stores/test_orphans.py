import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path

import pytest
from sqlalchemy import delete, func, insert, select
from sqlalchemy.orm import Session, sessionmaker

from core.database import new_id, seconds_from_now, transaction
from core.service.jobs.queue import claim, finish_failed, submitted
from core.service.jobs.states import LEASED, STATUSES
from core.service.jobs.tables import ArtifactFileRow, JobRow
from core.service.registry.tables import DatasetRow, ModelRow, UploadRow
from core.service.retention.orphans import sweep_orphans
from core.service.retention.unknown import count_unknown, remove_unknown, unknown_artifacts
from core.service.teams.installation import open_own_store, owned
from core.service.teams.quotas import reserve_stored
from core.service.teams.tables import TeamRow
from core.settings import Settings
from core.storage import LocalStore, Store, artifact_prefix, open_store
from secateur_wire.errors import NotFound
from tests.job_rows import job_row
from tests.stored import put
from tests.stores.conftest import write_artifact

Sessions = sessionmaker[Session]


@pytest.fixture
def settings(settings: Settings, store_settings: Settings) -> Settings:
    """Sweep the database and the store; everything is old enough at once, though S3 tells whole seconds."""
    of_store = {name: value for name, value in store_settings if name.startswith("store_")}
    return settings.model_copy(update=of_store | {"orphan_seconds": -2.0, "home": store_settings.home})


def new_job(session: Session, team: str, status: str, attempt: int) -> str:
    lease = func.clock_timestamp() if status in LEASED else None
    row = job_row(team, status=status, attempt=attempt, lease_expires_at=lease)
    session.add(row)
    session.flush()
    return row.id


def put_one(store: Store, prefix: str) -> str:
    put(store, prefix, "a", b"a")
    return prefix


def name_artifact(session: Session, job_id: str, attempt: int) -> None:
    row = {"job_id": job_id, "attempt": attempt, "path": "a", "bytes": 1, "sha256": "0"}
    session.execute(insert(ArtifactFileRow).values(row))


def is_there(store: Store, prefix: str) -> bool:
    return store.usage(prefix) is not None


def test_attempts_are_swept_unless_named_or_in_a_workers_hands(
    store: Store, settings: Settings, sessions: Sessions, team: str
) -> None:
    """Every state of a job, with the artifact of its newest attempt or of an older one, named by a row or not."""
    kept, orphans = set(), set()
    for status, is_newest, is_named in product(STATUSES, (True, False), (True, False)):
        attempt = 2 if is_newest else 1
        with transaction(sessions) as session:
            job_id = new_job(session, team, status, 2)
            if is_named:
                name_artifact(session, job_id, attempt)
        prefix = put_one(store, artifact_prefix(job_id, attempt))
        (kept if is_named or (status in LEASED and is_newest) else orphans).add(prefix)
    with transaction(sessions) as session:  # two attempts of one job, one of them left an artifact
        job_id = new_job(session, team, "succeeded", 2)
        name_artifact(session, job_id, 2)
    orphans.add(put_one(store, artifact_prefix(job_id, 1)))
    kept.add(put_one(store, artifact_prefix(job_id, 2)))
    kept.add(put_one(store, "job_0ofanotherdatabase/attempt-1"))
    kept.add(put_one(store, "generated/abc"))
    assert set(sweep_orphans(sessions, owned(store, sessions), settings)) == orphans
    assert {prefix for prefix in kept | orphans if is_there(store, prefix)} == kept
    assert sweep_orphans(sessions, owned(store, sessions), settings) == []


def test_what_is_young_stays(settings: Settings, sessions: Sessions, team: str, tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    with transaction(sessions) as session:
        young, old = (artifact_prefix(new_job(session, team, "failed", 1), 1) for _ in range(2))
    for prefix in (young, old, "models/model_old"):
        put_one(store, prefix)
    long_ago = time.time() - 7200
    for path in [*store.folder(old).rglob("*"), store.folder(old), store.folder("models/model_old")]:
        os.utime(path, (long_ago, long_ago))  # of the model only the folder: its file was written just now
    assert sweep_orphans(sessions, owned(store, sessions), settings.model_copy(update={"orphan_seconds": 3600.0})) == [
        old
    ]


def test_models_and_uploads_are_swept_unless_named(
    store: Store, settings: Settings, sessions: Sessions, team: str
) -> None:
    def upload(session: Session, status: str) -> UploadRow:
        row = UploadRow(
            id=new_id("upload"), team_id=team, kind="model", name=new_id("x"), status=status,
            object_id=new_id("model"), text_field="text", source="upload", bytes=10, part_bytes=100,
            expires_at=datetime.now(UTC) + timedelta(hours=1),
        )  # fmt: skip
        session.add(row)
        return row

    common = {"team_id": team, "source": "upload", "files": []}
    with transaction(sessions) as session:
        session.add(ModelRow(id="model_1", name="m", prefix="models/model_1", revision="r", description={}, **common))
        text = {"format": "text", "text_field": "text", "documents": 1, "characters": 1, "bytes": 1, "sha256": "0"}
        session.add(DatasetRow(id="dataset_1", name="d", prefix="datasets/dataset_1", **text, **common))
        open_one, failed, complete = (upload(session, status) for status in ("open", "failed", "complete"))
    kept = {"models/model_1", "datasets/dataset_1", f"uploads/{open_one.id}", f"models/{open_one.object_id}"}
    orphans = {
        "models/model_0",
        "datasets/dataset_0",
        "uploads/upload_0",
        f"uploads/{failed.id}",
        f"models/{failed.object_id}",
        f"uploads/{complete.id}",
    }
    for prefix in kept | orphans:
        put_one(store, prefix)
    assert set(sweep_orphans(sessions, owned(store, sessions), settings)) == orphans
    assert {prefix for prefix in kept | orphans if is_there(store, prefix)} == kept


def test_expired_uploads_go_and_give_their_space_back(
    store: Store, settings: Settings, sessions: Sessions, team: str
) -> None:
    with transaction(sessions) as session:
        for name, is_expired, lease in (("a", True, None), ("b", False, None), ("c", True, 60.0), ("d", True, -1.0)):
            reserve_stored(session, team, 10)
            session.add(
                UploadRow(
                    id=f"upload_{name}", team_id=team, kind="dataset", name=name, object_id=f"dataset_{name}",
                    text_field="text", source="upload", bytes=10, part_bytes=100,
                    expires_at=seconds_from_now(-1 if is_expired else 3600),
                    completing_until=None if lease is None else seconds_from_now(lease),
                )
            )  # fmt: skip
    for name in "abcd":
        put_one(store, f"uploads/upload_{name}/x.txt")
    sweep_orphans(sessions, owned(store, sessions), settings)
    with transaction(sessions) as session:
        assert set(session.scalars(select(UploadRow.id))) == {"upload_b", "upload_c"}
        assert session.scalars(select(TeamRow.stored_bytes).where(TeamRow.id == team)).one() == 20
    assert set(store.children("uploads")) == {"upload_b", "upload_c"}


def test_a_publisher_killed_midway_leaves_nothing_listed_and_is_swept_once_it_is_over(
    store: Store, settings: Settings, sessions: Sessions, team: str, tmp_path: Path
) -> None:
    big = os.urandom(2**20) * 96
    folder = write_artifact(tmp_path / "artifact", a_safetensors=b"small", b_safetensors=big, c_safetensors=big)
    with transaction(sessions) as session:
        submitted(session, job_row(team))
        claimed = claim(session, queue="default", worker_id="worker_1", lease_seconds=60)
    assert claimed is not None
    prefix = artifact_prefix(claimed.job_id, 1)
    command = [sys.executable, "-m", "tests.stores.publish", settings.model_dump_json(), str(folder), prefix]
    assert subprocess.run(command).returncode == -signal.SIGKILL
    assert list(store.unfinished()) != []
    with pytest.raises(NotFound):
        store.open_range(prefix, "secateur.json", 0, 1)
    assert sweep_orphans(sessions, owned(store, sessions), settings) == []
    assert list(store.unfinished()) != [], "taken from a worker that may still be at work"
    with transaction(sessions) as session:
        problem = {"code": "runner_lost", "message": "", "param": None, "retryable": False}
        assert finish_failed(session, claimed.job_id, 1, problem) == "failed"
        assert session.scalars(select(ArtifactFileRow)).all() == []
    sweep_orphans(sessions, owned(store, sessions), settings)
    assert list(store.unfinished()) == [] and not is_there(store, prefix)
    assert list(open_store(settings).children()) == ["owner"]


def test_what_a_restored_database_does_not_know_is_counted_listed_and_removed_when_told(
    settings: Settings, sessions: Sessions, team: str
) -> None:
    store = open_own_store(settings, sessions)
    with transaction(sessions) as session:
        known, lost = (new_job(session, team, "running", 1) for _ in range(2))
    for job_id, attempt in ((known, 1), (lost, 1), (lost, 2)):
        put(store, artifact_prefix(job_id, attempt), "a", b"abc")
    assert count_unknown(sessions, store) == 0
    with transaction(sessions) as session:  # as the dump was, from before the job
        session.execute(delete(JobRow).where(JobRow.id == lost))
    assert count_unknown(sessions, store) == 1
    assert sweep_orphans(sessions, store, settings) == [], "they are nobody's to remove but the operator's"
    [found] = unknown_artifacts(sessions, store)
    assert (found.job_id, found.bytes) == (lost, 6)
    assert list(remove_unknown(sessions, store, older_than=timedelta(days=1))) == []
    [removed] = remove_unknown(sessions, store, older_than=timedelta(seconds=-2))
    assert removed.job_id == lost and list(unknown_artifacts(sessions, store)) == []
    assert store.usage(artifact_prefix(known, 1)) is not None


def test_an_attempt_that_comes_again_after_a_restore_does_not_mix_with_the_files_of_the_lost_one(
    settings: Settings, sessions: Sessions, tmp_path: Path
) -> None:
    """Numbers of attempts repeat after a restore: what the lost one stored is under the same prefix."""
    store = open_own_store(settings, sessions)
    prefix = artifact_prefix("job_1", 1)
    store.publish(write_artifact(tmp_path / "lost", a_txt=b"lost", only_txt=b"lost"), prefix)
    new = store.publish(write_artifact(tmp_path / "new", a_txt=b"new"), prefix)
    usage = store.usage(prefix)
    assert usage is not None and usage.bytes == sum(file.bytes for file in new)
    assert b"".join(store.open_range(prefix, "a.txt", 0, 3)) == b"new"
