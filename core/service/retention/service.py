"""Service of a team's retention: read, set, preview, apply."""

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Final

import structlog
from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.errors import Conflict, NotFound, SecateurError
from core.service.duties.isolation import IsolatedRows, RowTask, is_tried
from core.service.jobs.states import TERMINAL
from core.service.jobs.tables import ArtifactFileRow, JobRow
from core.service.retention.deletion import delete_artifacts
from core.service.retention.in_use import artifacts_in_use
from core.service.retention.reads import being_read
from core.service.retention.rules import Artifact, kept_by_rules
from core.service.retention.schemas import Retention, RetentionPolicy, RetentionPreview
from core.service.retention.tables import RetentionPolicyRow
from core.service.teams import audit
from core.service.teams.principal import Actor, Automation, team_of
from core.settings import Settings
from core.storage import Store, open_store
from core.storage.removal import remove_prefixes
from secateur_wire.metrics import Metrics
from secateur_wire.retention import ArtifactVerdict

DUTY: Final = "retention"
MOST_SHOWN: Final = 1000
_BATCH: Final = 500

logger = structlog.get_logger()


def get_retention(session: Session, team_id: str) -> Retention:
    """Return the team's policy; None as the policy of a team that never set one."""
    row = session.get(RetentionPolicyRow, team_id)
    if row is None:
        return Retention(policy=None, updated_at=None)
    return Retention(policy=RetentionPolicy.model_validate(row.policy), updated_at=row.updated_at)


def set_retention(session: Session, caller: Actor, policy: RetentionPolicy | None) -> Retention:
    """Set the policy, from the dispatcher's next round on. Idempotent; the audit trail has the old and the new one."""
    team_id = team_of(caller)
    before = get_retention(session, team_id).policy
    if policy == before:
        return get_retention(session, team_id)
    if policy is None:
        session.execute(delete(RetentionPolicyRow).where(RetentionPolicyRow.team_id == team_id))
    else:
        values = {"policy": policy.model_dump(mode="json"), "updated_at": func.clock_timestamp()}
        session.execute(
            insert(RetentionPolicyRow)
            .values(team_id=team_id, **values)
            .on_conflict_do_update(index_elements=["team_id"], set_=values)
        )
    session.expire_all()
    details = {name: each and each.model_dump(mode="json") for name, each in (("from", before), ("to", policy))}
    audit.note(session, caller, "retention.set", team_id, details)
    return get_retention(session, team_id)


def preview(session: Session, team_id: str, policy: RetentionPolicy) -> RetentionPreview:
    """Preview what a policy would remove now, and why the rest stays. Nothing is changed."""
    artifacts = verdicts(session, team_id, policy)
    going = [each for each in artifacts if each.goes]
    staying = [each for each in artifacts if not each.goes]
    return RetentionPreview(
        policy=policy,
        artifacts=[*going, *staying][:MOST_SHOWN],
        goes=len(going),
        stays=len(staying),
        bytes_freed=sum(each.bytes for each in going),
    )


def verdicts(session: Session, team_id: str, policy: RetentionPolicy) -> list[ArtifactVerdict]:
    """Return the verdict on every artifact of the team, the oldest first."""
    artifacts = _artifacts(session, team_id)
    now: datetime = session.scalars(select(func.clock_timestamp())).one()
    rules = kept_by_rules(artifacts, policy, now)
    due = [each.job_id for each in artifacts if not rules[each.job_id]]
    used, read = _used_and_read(session, team_id, due)
    answers = []
    for each in artifacts:
        reasons = rules[each.job_id]
        reasons += ["in_use"] if each.job_id in used else []
        reasons += ["read"] if each.job_id in read else []
        answers.append(
            ArtifactVerdict(
                job_id=each.job_id,
                model=each.model,
                method=each.method,
                finished_at=each.finished_at,
                files=each.files,
                bytes=each.bytes,
                goes=not reasons,
                kept_because=reasons,
                used_by=used.get(each.job_id),
            )
        )
    return answers


def _artifacts(session: Session, team_id: str) -> list[Artifact]:
    """Return the stored artifacts of jobs that are over, of every attempt."""
    stored = (
        select(
            ArtifactFileRow.job_id,
            func.count().label("files"),
            func.sum(ArtifactFileRow.bytes).label("bytes"),
        )
        .join(JobRow, JobRow.id == ArtifactFileRow.job_id)
        .where(JobRow.team_id == team_id)
        .group_by(ArtifactFileRow.job_id)
        .subquery()
    )
    rows = session.execute(
        select(
            JobRow.id,
            JobRow.model,
            JobRow.method,
            JobRow.status,
            JobRow.finished_at,
            JobRow.metrics,
            JobRow.labels,
            stored.c.files,
            stored.c.bytes,
        )
        .join(stored, stored.c.job_id == JobRow.id)
        .where(JobRow.status.in_(TERMINAL), JobRow.finished_at.is_not(None))
        .order_by(JobRow.finished_at, JobRow.id)
    )
    return [
        Artifact(
            job_id=row.id,
            model=row.model,
            method=row.method,
            status=row.status,
            finished_at=row.finished_at,
            metrics=Metrics.model_validate(row.metrics or {}),
            labels=row.labels,
            files=row.files,
            bytes=int(row.bytes),
        )
        for row in rows
    ]


def _used_and_read(session: Session, team_id: str, job_ids: Sequence[str]) -> tuple[dict[str, str], set[str]]:
    used: dict[str, str] = {}
    read: set[str] = set()
    for first in range(0, len(job_ids), _BATCH):
        batch = job_ids[first : first + _BATCH]
        used |= artifacts_in_use(session, team_id, batch)
        read |= being_read(session, batch)
    return used, read


def apply_retention(sessions: sessionmaker[Session], settings: Settings) -> int | None:
    """Remove what the teams' policies do not keep; how many artifacts, None where there was nothing to do.

    Each goes in a transaction of its own, in which it is looked at again: what came to need it meanwhile keeps it.
    """
    rows = IsolatedRows(sessions, DUTY)
    with transaction(sessions) as session:
        teams = session.scalars(
            select(RetentionPolicyRow.team_id).where(is_tried(DUTY, RetentionPolicyRow.team_id))
        ).all()
    store = open_store(settings)
    tasks = [RowTask(team_id, partial(_apply, sessions, store, team_id), _suspend) for team_id in teams]
    return sum(rows.run_all(tasks)) or None


def _apply(sessions: sessionmaker[Session], store: Store, team_id: str) -> int:
    """Remove what one team's policy does not keep; how many artifacts."""
    removed = 0
    with transaction(sessions) as session:
        policy = get_retention(session, team_id).policy
        if policy is None:
            return 0
        going = [each for each in verdicts(session, team_id, policy) if each.goes]
    for each in going:
        prefixes = _remove(sessions, team_id, policy, each.job_id)
        remove_prefixes(store, prefixes)
        removed += bool(prefixes)
    return removed


def _suspend(team_id: str, session: Session, reason: SecateurError) -> bool:
    """Leave a team's policy alone for a day, and say so in its audit trail. Everything stays meanwhile."""
    audit.note(session, Automation(team_id, "retention"), "retention.fail", team_id, {"reason": reason.message})
    return False


def _remove(sessions: sessionmaker[Session], team_id: str, policy: RetentionPolicy, job_id: str) -> Sequence[str]:
    try:
        with transaction(sessions) as session:
            if get_retention(session, team_id).policy != policy:
                return ()
            prefixes = delete_artifacts(session, Automation(team_id, "retention"), job_id)
            if being_read(session, [job_id]):  # asked once the job is locked: who comes now waits, and finds nothing
                raise Conflict(f"the artifact of job {job_id!r} is being downloaded")
            return prefixes
    except (Conflict, NotFound) as error:
        logger.info("artifact kept", job=job_id, reason=error.message)
        return ()
