"""Removal of orphans: files in the store that no row names, and abandoned uploads.

Files are written to the store before the rows that name them, and rows are deleted before the files. So a killed
process may leave files without a row, but never a row without its files. Only old files are removed, if no row names
them and nobody works on them. This state is final, because attempts and ids are never reused.
"""

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial

import structlog
from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.duties.isolation import IsolatedRows, RowTask
from core.service.jobs.states import LEASED
from core.service.jobs.tables import ArtifactFileRow, JobRow
from core.service.registry.tables import DatasetRow, ModelRow, UploadRow
from core.service.registry.uploads import abort_upload, object_prefix, upload_prefix
from core.service.retention.unknown import JOB_ID, batches, jobs_in_store
from core.settings import Settings
from core.storage import OwnedStore, Store, artifact_prefix
from core.storage.owned import MARK_PREFIX
from core.storage.removal import remove_prefixes
from core.storage.store import GENERATED_PREFIX
from secateur_wire.errors import StoreUnavailable

_BATCH = 500
_ID = r"(?:uploads/upload|models/model|datasets/dataset)_[0-9a-z]+"
_OF_UPLOADS = re.compile(_ID)
_NAMED_HERE = re.compile(rf"(?:{_ID}|{JOB_ID}/attempt-\d+|(?:{GENERATED_PREFIX}|{MARK_PREFIX})/.+)?")
"""Prefixes that this service writes to. A bucket may contain other things."""

logger = structlog.get_logger()


def sweep_orphans(sessions: sessionmaker[Session], store: OwnedStore, settings: Settings) -> list[str]:
    """Remove orphans once; return their prefixes. Any number of processes may run this at once.

    Other objects in the store, and artifacts of jobs that this database does not know, are left alone. Raises
    StoreOfAnother where the store belongs to another installation, and StoreUnavailable.
    """
    store.require_own()
    _expire_uploads(sessions, store)
    before = datetime.now(UTC) - timedelta(seconds=settings.orphan_seconds)
    for each in store.unfinished():
        if each.touched < before and _NAMED_HERE.fullmatch(each.prefix):
            with transaction(sessions) as session:
                is_worked_on = each.prefix in _worked_on(session, [each.prefix])
            if not is_worked_on:
                each.discard()
    rows = IsolatedRows(sessions, "orphans", ends=(StoreUnavailable,))
    removed: list[str] = []
    for prefixes in batches(_candidates(sessions, store)):
        with transaction(sessions) as session:
            kept = _worked_on(session, prefixes)
            # Read after `_worked_on`: a row names the files of an attempt that ended in between.
            kept |= _named(session, prefixes)
        tasks = [
            RowTask(prefix, partial(_remove_old, store, prefix, before)) for prefix in prefixes if prefix not in kept
        ]
        removed += rows.run_all(tasks)
    return removed + _sweep_generated(store, settings)


def _remove_old(store: Store, prefix: str, before: datetime) -> str | None:
    """Remove the files of a prefix unless one was recently written; return the prefix if they were removed."""
    usage = store.usage(prefix)
    if usage is None or usage.touched >= before:
        return None
    remove_prefixes(store, [prefix])
    logger.info("orphan removed", prefix=prefix)
    return prefix


def _sweep_generated(store: Store, settings: Settings) -> list[str]:
    """Remove old calibration texts that models generated.

    No row names them: any job may use one that exists, and otherwise generates it again. A job that reads one without a
    copy updates its time first.
    """
    before = datetime.now(UTC) - timedelta(days=settings.generated_keep_days)
    removed = []
    for name in store.children(GENERATED_PREFIX):
        prefix = f"{GENERATED_PREFIX}/{name}"
        usage = store.usage(prefix)
        if usage is not None and usage.touched < before:
            remove_prefixes(store, [prefix])
            removed.append(prefix)
            logger.info("generated text removed", prefix=prefix)
    return removed


def _expire_uploads(sessions: sessionmaker[Session], store: Store) -> None:
    over = (
        UploadRow.expires_at < func.statement_timestamp(),
        or_(UploadRow.completing_until.is_(None), UploadRow.completing_until < func.clock_timestamp()),
    )
    with transaction(sessions) as session:
        ids = session.scalars(select(UploadRow.id).where(*over).order_by(UploadRow.expires_at).limit(_BATCH)).all()
    for upload_id in ids:
        with transaction(sessions) as session:
            query = select(UploadRow).where(UploadRow.id == upload_id, *over)
            row = session.scalar(query.with_for_update(skip_locked=True))
            leftovers = () if row is None else abort_upload(session, row.team_id, row.id, action="upload.expire")
        remove_prefixes(store, leftovers)


def _candidates(sessions: sessionmaker[Session], store: Store) -> Iterator[str]:
    """Yield prefixes that may be orphans.

    Jobs whose attempts all stored an artifact, which are nearly all jobs, are left out: each would cost a request to
    the store.
    """
    for name in ("uploads", "models", "datasets"):
        yield from filter(_OF_UPLOADS.fullmatch, (f"{name}/{child}" for child in store.children(name)))
    for ids in batches(jobs_in_store(store)):
        with transaction(sessions) as session:
            stored = func.count(ArtifactFileRow.attempt.distinct())
            doubtful = session.scalars(
                select(JobRow.id)
                .outerjoin(ArtifactFileRow, ArtifactFileRow.job_id == JobRow.id)
                .where(JobRow.id.in_(ids))
                .group_by(JobRow.id)
                .having(stored < JobRow.attempt)
            ).all()
        for job_id in doubtful:
            yield from (f"{job_id}/{attempt}" for attempt in store.children(job_id))


def _worked_on(session: Session, prefixes: Iterable[str]) -> set[str]:
    """Return the prefixes that a worker or an upload may be writing to."""
    firsts, seconds = _names(prefixes)
    leased = session.execute(select(JobRow.id, JobRow.attempt).where(JobRow.id.in_(firsts), JobRow.status.in_(LEASED)))
    attempts = {artifact_prefix(row.id, row.attempt) for row in leased}
    uploads = session.scalars(
        select(UploadRow).where(
            UploadRow.status == "open", or_(UploadRow.id.in_(seconds), UploadRow.object_id.in_(seconds))
        )
    ).all()
    return (
        attempts
        | {upload_prefix(row.id) for row in uploads}
        | {object_prefix(row.kind, row.object_id) for row in uploads}
    )


def _named(session: Session, prefixes: Iterable[str]) -> set[str]:
    wanted = list(prefixes)
    firsts, _ = _names(wanted)
    files = session.execute(
        select(ArtifactFileRow.job_id, ArtifactFileRow.attempt).where(ArtifactFileRow.job_id.in_(firsts)).distinct()
    )
    models = session.scalars(select(ModelRow.prefix).where(ModelRow.prefix.in_(wanted)))
    datasets = session.scalars(select(DatasetRow.prefix).where(DatasetRow.prefix.in_(wanted)))
    artifacts = {artifact_prefix(row.job_id, row.attempt) for row in files}
    return artifacts | {prefix for prefix in (*models, *datasets) if prefix is not None}


def _names(prefixes: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the first and the second path components of the prefixes."""
    split = [prefix.partition("/") for prefix in prefixes]
    return [first for first, _, _ in split], [second for _, _, second in split]
