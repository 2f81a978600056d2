"""Removal of orphans: prefixes in the store that nothing names, and uploads that nobody goes on with.

Files appear in the store before rows name them, and rows go before files do, so a process that is killed in between
leaves files behind, and never a row without its files. What is swept is old, and neither named by a row nor in the
hands of somebody who still works on it. Once neither holds, neither ever will again: attempts and ids are used once.
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
"""Prefixes that this service writes to; none is that of a version which did not say. A bucket may hold other things."""

logger = structlog.get_logger()


def sweep_orphans(sessions: sessionmaker[Session], store: OwnedStore, settings: Settings) -> list[str]:
    """Remove orphans once; returns their prefixes. Any number of processes may run at once.

    Other things in the store, and artifacts of jobs this database does not know, are left alone. Raises StoreOfAnother
    where the store is another installation's, and StoreUnavailable.
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
            kept |= _named(session, prefixes)  # after the former: what ended between the two has its name by now
        tasks = [
            RowTask(prefix, partial(_remove_old, store, prefix, before)) for prefix in prefixes if prefix not in kept
        ]
        removed += rows.run_all(tasks)
    return removed + _sweep_generated(store, settings)


def _remove_old(store: Store, prefix: str, before: datetime) -> str | None:
    """Remove what lies under a prefix unless something there was touched since; the prefix where it did."""
    usage = store.usage(prefix)
    if usage is None or usage.touched >= before:
        return None
    remove_prefixes(store, [prefix])
    logger.info("orphan removed", prefix=prefix)
    return prefix


def _sweep_generated(store: Store, settings: Settings) -> list[str]:
    """Remove old texts that models generated for calibration.

    No row names them: any job may use one that is there, and generates it anew where it is not. A job that reads one in
    place touches it first.
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

    Jobs of which every attempt left an artifact, nearly all of them, are left out: each would cost a request to the
    store.
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
    """Return those that a worker may be publishing, or that an upload may be arriving in."""
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
    """Return the first and the second names of the prefixes."""
    split = [prefix.partition("/") for prefix in prefixes]
    return [first for first, _, _ in split], [second for _, _, second in split]
