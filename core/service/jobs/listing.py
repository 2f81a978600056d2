"""Filters and sort orders of the list of a team's jobs."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import TypedDict, get_args

from sqlalchemy import ColumnElement, Integer, Select, cast, false, func, literal_column, select
from sqlalchemy.dialects.postgresql import TSQUERY, TSVECTOR

from core.pagination import NEWEST, OLDEST, Order
from core.service.jobs.states import STATUSES
from core.service.jobs.tables import JOB_IN_LIFE, JOB_WORDS, SHORT_ROW, JobRow
from secateur_wire.jobs import JobSort
from secateur_wire.states import JobStatus

SORTS: tuple[JobSort, ...] = get_args(JobSort)

_in_life: ColumnElement[int] = literal_column(JOB_IN_LIFE, Integer)


class JobFilters(TypedDict, total=False):
    """Filters of the list of jobs; a job must match all that are given.

    `search` is a list of words, in any case. Each must be the beginning of a word in the job's id, model, method or
    metadata values.
    """

    status: JobStatus | None
    method: str | None
    model: str | None
    metadata: Mapping[str, str] | None
    search: str | None


def matching(team_id: str, filters: JobFilters) -> Select[JobRow]:
    """Return the query of the team's jobs that match, without the search for words."""
    query = select(JobRow).options(*SHORT_ROW).where(JobRow.team_id == team_id)
    if (status := filters.get("status")) is not None:
        # The condition follows the sort order: it is one range of the index.
        query = query.where(_in_life == STATUSES.index(status) + 1)
    if (method := filters.get("method")) is not None:
        query = query.where(JobRow.method == method)
    if (model := filters.get("model")) is not None:
        query = query.where(JobRow.model == model)
    if metadata := filters.get("metadata"):
        query = query.where(JobRow.labels.contains(dict(metadata)))
    return query


_BETWEEN_WORDS = re.compile(r"[\x00-\x2f\x3a-\x40\x5b-\x60\x7b-\x7f]+")
"""Separators of words, as in `JOB_WORDS`."""


def words_condition(team_id: str, filters: JobFilters) -> ColumnElement[bool] | None:
    """Return the condition for the searched words, or None without words. `read_window` takes it separately."""
    if not (search := (filters.get("search") or "").strip()):
        return None
    words = [word for word in _BETWEEN_WORDS.split(search) if word]
    if not words:
        return false()
    wanted = " & ".join([f"'_{team_id}'", *(f"'{word}':*" for word in dict.fromkeys(words))])
    return literal_column(JOB_WORDS, TSVECTOR).bool_op("@@")(cast(func.lower(wanted), TSQUERY))


ORDERS: dict[JobSort, Order] = {
    "newest": NEWEST,
    "oldest": OLDEST,
    "model": Order("model", descending=False, key=JobRow.model.expression, key_of=lambda row: row.model),
    "method": Order("method", descending=False, key=JobRow.method.expression, key_of=lambda row: row.method),
    "status": Order(
        "status", descending=False, key=_in_life, key_of=lambda row: STATUSES.index(row.status) + 1, kind=int
    ),
    "finished": Order(
        "finished",
        descending=True,
        key=JobRow.finished_at.expression,
        key_of=lambda row: row.finished_at,
        kind=datetime,
    ),
}
"""`finished`: the most recently ended jobs come first, and unfinished jobs last."""
