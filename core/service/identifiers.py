"""Shortened identifiers: the beginning of an id, or `-` for the newest job of a caller."""

import re
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import ColumnElement, select, text
from sqlalchemy.orm import Session

from core.service.jobs.tables import JobRow
from core.service.publications.tables import PublicationRow
from core.service.sweeps.tables import SweepRow
from core.service.teams.principal import Principal, name_of
from core.service.teams.tables import ApiKeyRow, AuditRow
from core.service.triggers.tables import TriggerRow
from core.service.webhooks.tables import WebhookDeliveryRow, WebhookRow
from secateur_wire.base import Page
from secateur_wire.errors import InvalidRequest, NotFound
from secateur_wire.identifiers import LENGTH, NEWEST, PREFIXES, Identifier, IdentifierKind

SUBMISSIONS: Final = 20_000
"""Number of newest submissions of the team in which the caller's is searched: the audit trail has no order by key."""

CANDIDATES: Final = 10
"""Maximum number of identifiers named in an error about an ambiguous beginning."""

_TABLES: Final[Mapping[IdentifierKind, Any]] = {
    "job": JobRow,
    "sweep": SweepRow,
    "publication": PublicationRow,
    "trigger": TriggerRow,
    "webhook": WebhookRow,
    "delivery": WebhookDeliveryRow,
    "key": ApiKeyRow,
}
_BY_ITS_VALUES = text("SELECT set_config('plan_cache_mode', 'force_custom_plan', true)")
"""A beginning may match one job or a million: each table is searched by the index that suits it."""


def identifiers(
    session: Session, caller: Principal, kind: IdentifierKind, shortened: str, *, limit: int = CANDIDATES
) -> Page[Identifier]:
    """Return the identifiers that `shortened` may stand for, newest first.

    They begin with it, with or without the word before the underscore. `-` stands for the job that the caller's key
    submitted last. Only an admin can look up keys.

    Raises InvalidRequest where no identifier can begin so, and NotFound where the caller submitted no job.
    """
    if shortened == NEWEST:
        if kind != "job":
            raise InvalidRequest(
                f"shortened: {NEWEST!r} is the newest job, and a {kind} is asked for", param="shortened"
            )
        return Page(data=[_newest_job(session, caller)], has_more=False, next_after=None)
    first, last = _range(kind, shortened)
    if kind == "key" and not caller.may("admin"):
        return Page(data=[], has_more=False, next_after=None)
    table = _TABLES[kind]
    session.execute(_BY_ITS_VALUES)
    rows = session.execute(
        select(table.id, table.created_at)
        .where(_is_of(table, caller.team_id), table.id.between(first, last))
        .order_by(table.created_at.desc(), table.id.desc())
        .limit(limit + 1)
    ).all()
    matches = [Identifier(id=row.id, kind=kind, created_at=row.created_at) for row in rows[:limit]]
    return Page(data=matches, has_more=len(rows) > limit, next_after=None)


def _range(kind: IdentifierKind, shortened: str) -> tuple[str, str]:
    """Return the first and the last identifier that may begin with this text."""
    word = f"{PREFIXES[kind]}_"
    beginning = shortened.removeprefix(word)
    if not re.fullmatch(rf"[0-9a-z]{{1,{LENGTH}}}", beginning):
        raise InvalidRequest(
            f"shortened: no {kind} is called {shortened!r}: write the beginning of its id, such as {word}01jd5…",
            param="shortened",
        )
    return f"{word}{beginning:0<{LENGTH}}", f"{word}{beginning:z<{LENGTH}}"


def _is_of(table: Any, team_id: str) -> ColumnElement[bool]:
    if table is WebhookDeliveryRow:
        return WebhookDeliveryRow.webhook_id.in_(select(WebhookRow.id).where(WebhookRow.team_id == team_id))
    is_of_team: ColumnElement[bool] = table.team_id == team_id
    return is_of_team


def _newest_job(session: Session, caller: Principal) -> Identifier:
    submissions = (
        select(AuditRow.object_id, AuditRow.actor)
        .where(AuditRow.team_id == caller.team_id, AuditRow.action == "job.submit")
        .order_by(AuditRow.created_at.desc(), AuditRow.id.desc())
        .limit(SUBMISSIONS)
        .subquery()
    )
    job_id = session.scalar(select(submissions.c.object_id).where(submissions.c.actor == name_of(caller)).limit(1))
    row = None if job_id is None else session.get(JobRow, job_id)
    if row is None:
        newest = select(JobRow.id).where(JobRow.team_id == caller.team_id).order_by(JobRow.created_at.desc()).limit(1)
        other = session.scalar(newest)
        instead = "nor has the team" if other is None else f"the team's newest job, of another key, is {other}"
        raise NotFound(f"{NEWEST!r} is the newest job of your own key, which has submitted none lately; {instead}")
    return Identifier(id=row.id, kind="job", created_at=row.created_at)
