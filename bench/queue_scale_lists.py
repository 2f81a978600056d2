"""Every filter and order the portal offers, for a team that holds half of all jobs."""

import time

from rich.console import Console
from rich.table import Table
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.errors import InvalidRequest
from core.pagination import cursor_of
from core.service.jobs import service
from core.service.jobs.listing import ORDERS, SORTS, JobFilters
from core.service.jobs.tables import JobRow
from secateur_wire.jobs import JobSort

LOOKS = 20
"""Number of looks of each kind; the first fills caches and does not count."""
FILTERS: dict[str, JobFilters] = {
    "all": {},
    "state, common": {"status": "succeeded"},
    "state, rare": {"status": "running"},
    "method": {"method": "wanda"},
    "method, none": {"method": "obd"},
    "model": {"model": "model-50"},
    "word most jobs have": {"search": "model"},
    "word a third has": {"search": "wanda"},
    "word few have": {"search": "c81e728d9d4c"},
    "word of one letter": {"search": "c"},
    "word none has": {"search": "nothing"},
    "words few have together": {"search": "wanda c81"},
    "word and state": {"search": "wanda", "status": "failed"},
}


def show_lists(console: Console, sessions: sessionmaker[Session], team: str) -> None:
    """Print the milliseconds of a page: the first of each kind, and in each order one from the middle. A search that is
    too broad for an order is refused.
    """
    table = Table("filter", *SORTS, title="Lists of jobs: p50 / p99 ms of a page of 25")
    with transaction(sessions) as session:
        jobs = select(JobRow).where(JobRow.team_id == team)
        count = session.scalar(select(func.count()).select_from(jobs.subquery())) or 0
        middle = session.scalars(jobs.order_by(JobRow.created_at).offset(count // 2).limit(1)).one()
    for name, filters in FILTERS.items():
        table.add_row(name, *(_timed(sessions, team, sort, filters) for sort in SORTS))
    middles = (_timed(sessions, team, sort, {}, cursor_of(ORDERS[sort], middle)) for sort in SORTS)
    table.add_row("all, from the middle", *middles)
    console.print(table)


def _timed(
    sessions: sessionmaker[Session], team: str, sort: JobSort, filters: JobFilters, after: str | None = None
) -> str:
    taken = []
    is_refused = ""
    for _ in range(LOOKS):
        begun = time.monotonic()
        try:
            with transaction(sessions) as session:
                service.list_jobs(session, team, limit=25, after=after, sort=sort, **filters)
        except InvalidRequest:
            is_refused = " (refused)"
        taken.append(1000 * (time.monotonic() - begun))
    ordered = sorted(taken[1:])
    return f"{ordered[len(ordered) // 2]:.0f} / {ordered[-1]:.0f}{is_refused}"
