"""Cursor pages: rows in order of (created_at, id), newest first, continued after an opaque cursor."""

import base64
import binascii
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar

from pydantic import BaseModel
from sqlalchemy import Select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

from core.errors import InvalidRequest

Item = TypeVar("Item")


class Page(BaseModel, Generic[Item]):
    """One page of a list. `next_after` is the `after` of the next page, null on the last."""

    data: list[Item]
    has_more: bool
    next_after: str | None


class _Listed(Protocol):
    @property
    def id(self) -> Any: ...
    @property
    def created_at(self) -> Any: ...


class _ListedTable(Protocol):
    id: InstrumentedAttribute[str]
    created_at: InstrumentedAttribute[datetime]


Row = TypeVar("Row", bound=_Listed)


def read_page(
    session: Session,
    query: Select[Row],
    table: Any,
    *,
    limit: int,
    after: str | None,
    answer: Callable[[Row], Item],
) -> Page[Item]:
    """The rows of `query` (over `table`) after the cursor; raises InvalidRequest where the cursor is not ours."""
    listed: _ListedTable = table
    if after is not None:
        created_at, row_id = _decode(after)
        query = query.where(tuple_(listed.created_at, listed.id) < tuple_(created_at, row_id))
    query = query.order_by(listed.created_at.desc(), listed.id.desc()).limit(limit + 1)
    rows: Sequence[Row] = session.scalars(query).all()
    page = rows[:limit]
    has_more = len(rows) > limit
    cursor = _encode(page[-1].created_at, page[-1].id) if has_more else None
    return Page(data=[answer(row) for row in page], has_more=has_more, next_after=cursor)


def _encode(created_at: datetime, row_id: str) -> str:
    return base64.urlsafe_b64encode(f"{created_at.isoformat()}|{row_id}".encode()).decode().rstrip("=")


def _decode(cursor: str) -> tuple[datetime, str]:
    try:
        decoded = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        created_at, row_id = decoded.split("|")
        moment = datetime.fromisoformat(created_at)
        if moment.tzinfo is None or "\x00" in row_id:
            raise ValueError(cursor)
    except (ValueError, binascii.Error):
        raise InvalidRequest(
            "after: not a cursor of this list; use next_after of the page before", param="after"
        ) from None
    return moment, row_id
