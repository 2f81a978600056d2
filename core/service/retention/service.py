"""Service of a team's retention: read, set, preview, apply."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final

import structlog
from sqlalchemy import ColumnElement, Select, delete, func, literal, not_, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.duties.isolation import IsolatedRows, RowTask, is_tried
from core.service.duties.tables import RowFailureRow
from core.service.retention.deletion import delete_artifacts
from core.service.retention.in_use import artifacts_in_use
from core.service.retention.reads import is_being_read
from core.service.retention.rules import ConditionedArtifacts, conditions_for, ended_before
from core.service.retention.schemas import Retention, RetentionPolicy, RetentionPreview
from core.service.retention.tables import ArtifactRow, RetentionPolicyRow
from core.service.teams import audit
from core.service.teams.installation import open_own_store
from core.service.teams.principal import Actor, Automation, team_of
from core.settings import Settings
from core.storage import Store
from core.storage.removal import remove_prefixes
from secateur_wire import gone
from secateur_wire.errors import Conflict, NotFound, SecateurError
from secateur_wire.retention import ArtifactVerdict

DUTY: Final = "retention"
MOST_SHOWN: Final = 1000
LOOKED_AT: Final = 500
"""Artifacts of one team that one statement checks; then it is another team's turn."""
MOST_REMOVED: Final = 1000
"""Artifacts of one team that one run of the dispatcher removes; the next run continues."""

logger = structlog.get_logger()


def get_retention(session: Session, team_id: str) -> Retention:
    """Return the team's policy; a team that never set one has the policy None.

    A stored policy with a rule that has left is None too, with the reason in `suspended`: it removes nothing.
    """
    row = session.get(RetentionPolicyRow, team_id)
    if row is None:
        return Retention(policy=None, suspended=None, updated_at=None)
    rules = {name: rule for name, rule in row.policy.items() if rule is not None}
    left = sorted(rules.keys() & gone.FIELDS.keys())
    if left:
        reason = (
            f"the policy has the rule {left[0]}, which has left: nothing is removed until an admin sets a new policy; "
            f"{gone.FIELDS[left[0]]}"
        )
        return Retention(policy=None, suspended=reason, updated_at=row.updated_at)
    policy = RetentionPolicy.model_validate(rules)
    return Retention(policy=policy, suspended=None, updated_at=row.updated_at)


def set_retention(session: Session, caller: Actor, policy: RetentionPolicy | None) -> Retention:
    """Set the policy, from the dispatcher's next round on.

    Idempotent; the audit trail has the old and the new policy.
    """
    team_id = team_of(caller)
    retention, stored = get_retention(session, team_id), session.get(RetentionPolicyRow, team_id)
    if policy == retention.policy and retention.suspended is None:
        return retention
    before = None if stored is None else stored.policy
    if policy is None:
        session.execute(delete(RetentionPolicyRow).where(RetentionPolicyRow.team_id == team_id))
    else:
        values = {"policy": policy.model_dump(mode="json"), "updated_at": func.clock_timestamp()}
        session.execute(
            insert(RetentionPolicyRow)
            .values(team_id=team_id, **values)
            .on_conflict_do_update(index_elements=["team_id"], set_=values)
        )
    session.execute(delete(RowFailureRow).where(RowFailureRow.duty == DUTY, RowFailureRow.row_id == team_id))
    session.expire_all()
    details = {"from": before, "to": policy and policy.model_dump(mode="json")}
    audit.note(session, caller, "retention.set", team_id, details)
    return get_retention(session, team_id)


def preview(session: Session, team_id: str, policy: RetentionPolicy) -> RetentionPreview:
    """Preview what a policy would remove now, and the reasons why the rest stays. Changes nothing.

    The counts are of all artifacts of the team; the list has at most `MOST_SHOWN`.
    """
    now = _now(session)
    of_team = select(ArtifactRow).where(ArtifactRow.team_id == team_id)
    old = conditions_for(team_id, policy, now, of_team.where(ArtifactRow.finished_at <= ended_before(policy, now)))
    every = conditions_for(team_id, policy, now, of_team)
    total = session.scalar(select(func.count()).select_from(ArtifactRow).where(ArtifactRow.team_id == team_id)) or 0
    size = func.coalesce(func.sum(old.columns.bytes), 0)
    goes, bytes_freed = session.execute(select(func.count(), size).select_from(old.rows).where(old.goes)).one()
    shown = _verdicts(session, team_id, old, old.goes, MOST_SHOWN)
    if len(shown) < MOST_SHOWN:
        shown += _verdicts(session, team_id, every, not_(every.goes), MOST_SHOWN - len(shown))
    return RetentionPreview(
        policy=policy,
        artifacts=shown,
        has_more=total > len(shown),
        goes=goes,
        stays=total - goes,
        bytes_freed=int(bytes_freed),
    )


def _now(session: Session) -> datetime:
    now: datetime = session.scalars(select(func.clock_timestamp())).one()
    return now


def _verdicts(
    session: Session, team_id: str, judged: ConditionedArtifacts, only: ColumnElement[bool], most: int
) -> list[ArtifactVerdict]:
    """Return the verdicts on the artifacts that match a condition, the oldest first."""
    artifact = judged.columns
    kept = {**judged.rules, **judged.uses}
    rows = session.execute(
        select(
            artifact.job_id,
            artifact.model,
            artifact.method,
            artifact.finished_at,
            artifact.files,
            artifact.bytes,
            judged.is_due.label("is_due"),
            *(condition.label(f"kept_{reason}") for reason, condition in kept.items()),
        )
        .select_from(judged.rows)
        .where(only)
        .order_by(artifact.finished_at, artifact.job_id)
        .limit(most)
    ).all()
    used = artifacts_in_use(session, team_id, [row.job_id for row in rows if row.is_due and row.kept_in_use])
    verdicts = []
    for row in rows:
        looked_at = judged.uses if row.is_due else judged.rules
        reasons = [reason for reason in looked_at if getattr(row, f"kept_{reason}")]
        verdicts.append(
            ArtifactVerdict(
                job_id=row.job_id,
                model=row.model,
                method=row.method,
                finished_at=row.finished_at,
                files=row.files,
                bytes=row.bytes,
                goes=not reasons,
                kept_because=reasons,
                used_by=used.get(row.job_id),
            )
        )
    return verdicts


@dataclass
class _Progress:
    """Progress of one team within a run: the last artifact that was checked, and the number of removed ones."""

    team_id: str
    after: tuple[datetime, str] | None = None
    removed: int = 0


def apply_retention(
    sessions: sessionmaker[Session], settings: Settings, goes_well: Callable[[], None] = lambda: None
) -> int | None:
    """Remove the artifacts that the teams' policies do not keep; return their number, None where nothing was due.

    Teams take turns, `LOOKED_AT` artifacts at a time, and a team that fails blocks no other. At most `MOST_REMOVED`
    artifacts of each team are removed; the rest follows in the next run. Each artifact is removed in a transaction of
    its own, which checks its use again.
    """
    rows = IsolatedRows(sessions, DUTY)
    with transaction(sessions) as session:
        teams = session.scalars(
            select(RetentionPolicyRow.team_id).where(is_tried(DUTY, RetentionPolicyRow.team_id))
        ).all()
    store = open_own_store(settings, sessions)
    if teams:
        store.require_own()
    waiting = deque(_Progress(team_id) for team_id in teams)
    removed = 0
    while waiting:
        progress = waiting.popleft()
        before = progress.removed
        has_more = rows.run(RowTask(progress.team_id, partial(_apply_to_some, sessions, store, progress), _suspend))
        removed += progress.removed - before
        if has_more and progress.removed < MOST_REMOVED:
            waiting.append(progress)
        goes_well()
    return removed or None


def _suspend(team_id: str, session: Session, reason: SecateurError) -> bool:
    """Suspend a team's policy for a day, and record that in its audit trail. Everything stays meanwhile."""
    audit.note(session, Automation(team_id, "retention"), "retention.fail", team_id, {"reason": reason.message})
    return False


def _apply_to_some(sessions: sessionmaker[Session], store: Store, progress: _Progress) -> bool:
    """Check the next artifacts of a team and remove those that nothing keeps; return whether there may be more."""
    team_id = progress.team_id
    with transaction(sessions) as session:
        retention = get_retention(session, team_id)
        if retention.suspended is not None:
            raise Conflict(retention.suspended)
        policy = retention.policy
        if policy is None:
            return False
        looked_at = _look_at_some(session, policy, progress)
    for job_id, goes in looked_at:
        if goes and progress.removed < MOST_REMOVED:
            prefixes = _remove(sessions, team_id, policy, job_id)
            remove_prefixes(store, prefixes)
            progress.removed += bool(prefixes)
    return len(looked_at) == LOOKED_AT


def _look_at_some(session: Session, policy: RetentionPolicy, progress: _Progress) -> list[tuple[str, bool]]:
    """Return the next artifacts of a team that are past their age, each with whether nothing keeps it."""
    now = _now(session)
    judged = conditions_for(progress.team_id, policy, now, _next(progress, ended_before(policy, now)))
    artifact = judged.columns
    rows = session.execute(
        select(artifact.job_id, artifact.finished_at, judged.goes.label("goes"))
        .select_from(judged.rows)
        .order_by(artifact.finished_at, artifact.job_id)
    ).all()
    if rows:
        progress.after = (rows[-1].finished_at, rows[-1].job_id)
    return [(row.job_id, row.goes) for row in rows]


def _next(progress: _Progress, before: datetime) -> Select[ArtifactRow]:
    place = (ArtifactRow.finished_at, ArtifactRow.job_id)
    query = select(ArtifactRow).where(ArtifactRow.team_id == progress.team_id, ArtifactRow.finished_at <= before)
    if progress.after is not None:
        query = query.where(tuple_(*place) > progress.after)
    return query.order_by(*place).limit(LOOKED_AT)


def _remove(sessions: sessionmaker[Session], team_id: str, policy: RetentionPolicy, job_id: str) -> Sequence[str]:
    try:
        with transaction(sessions) as session:
            if get_retention(session, team_id).policy != policy:
                return ()
            prefixes = delete_artifacts(session, Automation(team_id, "retention"), job_id)
            # Checked again under the job's lock: a later user waits, and then finds no artifact.
            if session.scalar(select(is_being_read(literal(job_id)))):
                raise Conflict(f"the artifact of job {job_id!r} is being downloaded")
            return prefixes
    except (Conflict, NotFound) as error:
        logger.info("artifact kept", job=job_id, reason=error.message)
        return ()
