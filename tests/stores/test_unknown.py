"""Artifacts of jobs that the database does not know, as after a restore: counted, listed, removed by an operator."""

from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import delete
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.jobs.tables import JobRow
from core.service.retention.orphans import sweep_orphans
from core.service.retention.unknown import count_unknown, remove_unknown, unknown_artifacts
from core.service.teams.installation import open_own_store
from core.settings import Settings
from core.storage import artifact_prefix
from tests.stored import put
from tests.stores.conftest import write_artifact
from tests.stores.test_orphans import new_job

Sessions = sessionmaker[Session]


@pytest.fixture
def settings(settings: Settings, store_settings: Settings) -> Settings:
    of_store = {name: value for name, value in store_settings if name.startswith("store_")}
    return settings.model_copy(update=of_store | {"orphan_seconds": -2.0, "home": store_settings.home})


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
