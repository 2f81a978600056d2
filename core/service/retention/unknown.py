"""Artifacts of jobs that the database does not know, for example after a restore of an older dump.

They may be the only copy of somebody's work, so they are counted and listed, and only an operator removes them.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice

import structlog
from sqlalchemy import select, update
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.jobs.tables import JobRow
from core.service.teams.installation import installation_id
from core.service.teams.tables import InstallationRow
from core.storage import OwnedStore, Store

JOB_ID = r"job_[0-9a-z]+"
_IS_JOB = re.compile(JOB_ID)
_BATCH = 500

logger = structlog.get_logger()


@dataclass(frozen=True)
class UnknownArtifact:
    """Files in the store of a job without a row, of all its attempts; `touched` is the time of the last write."""

    job_id: str
    bytes: int
    touched: datetime


def unknown_artifacts(sessions: sessionmaker[Session], store: Store) -> Iterator[UnknownArtifact]:
    """Yield the artifacts of jobs that the database does not know, oldest job first. Raises StoreUnavailable."""
    for job_id in _unknown_jobs(sessions, store):
        usage = store.usage(job_id)
        if usage is not None:
            yield UnknownArtifact(job_id, usage.bytes, usage.touched)


def remove_unknown(
    sessions: sessionmaker[Session], store: OwnedStore, *, older_than: timedelta
) -> Iterator[UnknownArtifact]:
    """Remove the unknown artifacts with an older last write, and yield each after its removal.

    Raises StoreOfAnother where the store belongs to another installation, and StoreUnavailable.
    """
    store.require_own()
    before = datetime.now(UTC) - older_than
    for artifact in unknown_artifacts(sessions, store):
        if artifact.touched < before:
            store.delete(artifact.job_id)
            logger.info("artifact of an unknown job removed", job=artifact.job_id, bytes=artifact.bytes)
            yield artifact


def count_unknown(sessions: sessionmaker[Session], store: OwnedStore) -> int:
    """Count the jobs with artifacts in the store and no row in the database; save the number for the metrics.

    Raises StoreOfAnother where the store belongs to another installation, and StoreUnavailable.
    """
    store.require_own()
    count = sum(1 for _ in _unknown_jobs(sessions, store))
    with transaction(sessions) as session:
        installation_id(session)
        session.execute(update(InstallationRow).values(unknown_artifacts=count))
    if count:
        logger.warning("the store has artifacts of jobs that the database does not know", jobs=count)
    return count


def last_count(session: Session) -> int:
    """Return the number from the last `count_unknown`."""
    return session.scalar(select(InstallationRow.unknown_artifacts)) or 0


def jobs_in_store(store: Store) -> Iterator[str]:
    """Yield the ids of jobs with files in the store."""
    return filter(_IS_JOB.fullmatch, store.children())


def batches(items: Iterable[str]) -> Iterator[list[str]]:
    """Yield the items in lists of a few hundred, the size of one statement."""
    iterator = iter(items)
    while batch := list(islice(iterator, _BATCH)):
        yield batch


def _unknown_jobs(sessions: sessionmaker[Session], store: Store) -> Iterator[str]:
    # A job's row is written before its files, so a job without a row has lost it.
    for ids in batches(jobs_in_store(store)):
        with transaction(sessions) as session:
            known = set(session.scalars(select(JobRow.id).where(JobRow.id.in_(ids))))
        yield from sorted(set(ids) - known)
