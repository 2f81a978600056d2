"""Quotas that depend on a team's jobs: room in the queue, and the team's total use."""

from sqlalchemy import bindparam, extract, func, select
from sqlalchemy.orm import Session

from core.service.jobs.tables import JobRow
from core.service.teams.quotas import ASK_AGAIN_SECONDS, device_seconds_used, month_end, month_start
from core.service.teams.tables import TeamRow
from secateur_wire.errors import QuotaExceeded
from secateur_wire.teams import Quotas, Team, Usage

_LIMITS = select(
    TeamRow.max_queued,
    TeamRow.max_device_seconds,
    device_seconds_used().label("used"),
    extract("epoch", month_end() - func.clock_timestamp()).label("month_left"),
).where(TeamRow.id == bindparam("team_id"))


def require_room_in_queue(session: Session, team_id: str, *, adding: int) -> None:
    """Require room in the queue for `adding` more jobs, and device time in this month; raises QuotaExceeded.

    If the number of jobs is limited, the team's row is locked, so that the second of two requests counts the first's
    job.
    """
    team = session.execute(_LIMITS, {"team_id": team_id}).one()
    if team.max_device_seconds is not None and team.used >= team.max_device_seconds:
        raise QuotaExceeded(
            f"the team has used {team.used / 3600:.1f} of its {team.max_device_seconds / 3600:g} device hours this "
            "month: its quota starts again next month (UTC)",
            retry_after=float(team.month_left),
        )
    if team.max_queued is None:
        return
    most = session.scalars(
        select(TeamRow.max_queued).where(TeamRow.id == team_id).with_for_update(key_share=True)
    ).one()
    if most is None:
        return
    queued = select(JobRow.id).where(JobRow.team_id == team_id, JobRow.status == "queued")
    first = queued.order_by(JobRow.queue).limit(most + 1).subquery()  # Ordered like the index of waiting jobs.
    waiting = session.scalar(select(func.count()).select_from(first)) or 0
    if waiting + adding > most:
        raise QuotaExceeded(
            f"the team's limit of {most} waiting jobs is reached: cancel some, or wait until some start",
            retry_after=ASK_AGAIN_SECONDS,
        )


def get_team(session: Session, team_id: str) -> Team:
    """Return the team's quotas and use."""
    row, used, month = session.execute(
        select(TeamRow, device_seconds_used(), month_start()).where(TeamRow.id == team_id)
    ).one()
    waiting = select(func.count()).where(JobRow.team_id == team_id, JobRow.status == "queued")
    return Team(
        id=row.id,
        name=row.name,
        weight=row.weight,
        quotas=Quotas.model_validate(row, from_attributes=True),
        usage=Usage(
            running=row.running,
            queued=session.scalar(waiting) or 0,
            device_seconds=used,
            month_started_at=month,
            stored_bytes=row.stored_bytes,
        ),
        created_at=row.created_at,
    )


def list_teams(session: Session) -> list[Team]:
    """Return all teams, by name."""
    return [get_team(session, team_id) for team_id in session.scalars(select(TeamRow.id).order_by(TeamRow.name)).all()]
