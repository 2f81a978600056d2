"""Artifacts of jobs that the database does not know, as after a restore of an older dump.

They may be all that is left of somebody's work: they are counted and listed, and removed by an operator alone.
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
    """Files in the store of a job without a row, all its attempts together; `touched` is the time of the last write."""

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
    """Remove those whose last write is longer ago, and yield each once it is gone.

    Raises StoreOfAnother where the store is another installation's, and StoreUnavailable.
    """
    store.require_own()
    before = datetime.now(UTC) - older_than
    for artifact in unknown_artifacts(sessions, store):
        if artifact.touched < before:
            store.delete(artifact.job_id)
            logger.info("artifact of an unknown job removed", job=artifact.job_id, bytes=artifact.bytes)
            yield artifact


def count_unknown(sessions: sessionmaker[Session], store: OwnedStore) -> int:
    """Count jobs that the store has artifacts of and the database does not know; keep the number for the metrics.

    Raises StoreOfAnother where the store is another installation's, and StoreUnavailable.
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
    """Return the number that `count_unknown` found last."""
    return session.scalar(select(InstallationRow.unknown_artifacts)) or 0


def jobs_in_store(store: Store) -> Iterator[str]:
    """Yield the ids of jobs that the store has files of."""
    return filter(_IS_JOB.fullmatch, store.children())


def batches(items: Iterable[str]) -> Iterator[list[str]]:
    """Yield the items in lists of a few hundred: as many as one statement asks for."""
    iterator = iter(items)
    while batch := list(islice(iterator, _BATCH)):
        yield batch


def _unknown_jobs(sessions: sessionmaker[Session], store: Store) -> Iterator[str]:
    for ids in batches(jobs_in_store(store)):  # files come after their job's row: what has none now has lost it
        with transaction(sessions) as session:
            known = set(session.scalars(select(JobRow.id).where(JobRow.id.in_(ids))))
        yield from sorted(set(ids) - known)
