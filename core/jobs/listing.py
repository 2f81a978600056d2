"""Which of a team's jobs are listed, and in which order."""

from collections.abc import Mapping
from datetime import datetime
from typing import Literal, TypedDict, get_args

from sqlalchemy import ColumnElement, Select, exists, func, literal, or_, select
from sqlalchemy.dialects.postgresql import array

from core.jobs.states import STATUSES, JobStatus
from core.jobs.tables import JobRow
from core.pages import NEWEST, OLDEST, Order

JobSort = Literal["newest", "oldest", "model", "method", "status", "finished"]
SORTS: tuple[JobSort, ...] = get_args(JobSort)


class JobFilters(TypedDict, total=False):
    """What a job must match, every one that is given. `search` is words, each of which stands somewhere in the job's
    id, model, method or a value of its metadata, in small or capital letters."""

    status: JobStatus | None
    method: str | None
    model: str | None
    metadata: Mapping[str, str] | None
    search: str | None


def matching(team_id: str, filters: JobFilters) -> Select[JobRow]:
    """The team's jobs that match."""
    query = select(JobRow).where(JobRow.team_id == team_id)
    if (status := filters.get("status")) is not None:
        query = query.where(JobRow.status == status)
    if (method := filters.get("method")) is not None:
        query = query.where(JobRow.method == method)
    if (model := filters.get("model")) is not None:
        query = query.where(JobRow.model == model)
    if metadata := filters.get("metadata"):
        query = query.where(JobRow.labels.contains(dict(metadata)))
    for word in dict.fromkeys((filters.get("search") or "").split()):
        query = query.where(_holds(word))
    return query


def _holds(word: str) -> ColumnElement[bool]:
    label = func.jsonb_each_text(JobRow.labels).table_valued("key", "value")
    in_labels = exists(select(literal(1)).select_from(label).where(label.c.value.icontains(word, autoescape=True)))
    return or_(
        JobRow.id.icontains(word, autoescape=True),
        JobRow.model.icontains(word, autoescape=True),
        JobRow.method.icontains(word, autoescape=True),
        in_labels,
    )


_IN_LIFE = func.array_position(array(STATUSES), JobRow.status)
"""A state's place in a job's life: what waits and runs comes before what has ended."""

ORDERS: dict[JobSort, Order] = {
    "newest": NEWEST,
    "oldest": OLDEST,
    "model": Order("model", descending=False, key=JobRow.model.expression, key_of=lambda row: row.model),
    "method": Order("method", descending=False, key=JobRow.method.expression, key_of=lambda row: row.method),
    "status": Order(
        "status", descending=False, key=_IN_LIFE, key_of=lambda row: STATUSES.index(row.status) + 1, kind=int
    ),
    "finished": Order(
        "finished",
        descending=True,
        key=JobRow.finished_at.expression,
        key_of=lambda row: row.finished_at,
        kind=datetime,
    ),
}
"""`finished`: those that ended last come first, those that did not end last."""
