"""Cursor pages: rows in an order the database keeps, continued after an opaque cursor.

A cursor holds the position of a row in its order: the name of the order, the row's key, its creation time and its id.
Added or removed rows do not change the position of other rows, so no row is skipped or returned twice. A page of long
rows ends early: it has at least one row, and at most `PAGE_BYTES` if it has several.
"""

import base64
import binascii
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar

from pydantic import BaseModel
from sqlalchemy import ColumnElement, Select, func, select, text, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from secateur_wire.base import Page
from secateur_wire.errors import InvalidRequest

Item = TypeVar("Item")
Key = str | int | datetime | None

PAGE_BYTES = 4 * 2**20
"""Largest number of bytes of a page, as JSON, that has more than one row."""
_FIRST_ROWS = 10
"""Number of rows that are read before it is known how long rows are."""

LONGEST_CURSOR = 3000
"""Longest cursor in characters: a key of 300, for which JSON may need four bytes each, and the other fields."""


@dataclass(frozen=True)
class Window(Generic[Item]):
    """Page of a list that can be turned in both directions.

    `after` is the cursor of the next page and `before` of the previous one, None if there is none.
    """

    data: list[Item]
    after: str | None
    before: str | None


@dataclass(frozen=True)
class Order:
    """Order of a list: by `key`, with rows without a key last, and equal keys newest first; without a key by age alone.

    `key` is the expression that the database sorts by. `key_of` returns the key of one row, of type `kind`.
    `descending` applies to the key or, if there is none, to the age.
    """

    name: str
    descending: bool
    key: ColumnElement[Any] | None = None
    key_of: Callable[[Any], Key] = lambda row: None
    kind: type[str] | type[int] | type[datetime] = str


NEWEST = Order("newest", descending=True)
OLDEST = Order("oldest", descending=False)


class _Listed(Protocol):
    @property
    def id(self) -> Any: ...
    @property
    def created_at(self) -> Any: ...


class _ListedTable(Protocol):
    id: InstrumentedAttribute[str]
    created_at: InstrumentedAttribute[datetime]


Row = TypeVar("Row", bound=_Listed)


@dataclass(frozen=True)
class Listing(Generic[Row, Item]):
    """List that is read page by page: the rows of `query`, over `table`, in an `order`, each as `answer` shows it.

    `having` is the condition of a search: it costs much for each row, has an index of its own, and PostgreSQL cannot
    estimate its rows.
    """

    query: Select[Row]
    table: Any
    answer: Callable[[Row], Item]
    order: Order = NEWEST
    having: ColumnElement[bool] | None = None


def read_page(session: Session, listing: Listing[Row, Item], *, limit: int, after: str | None) -> Page[Item]:
    """Return the page of a list after the cursor.

    Raises InvalidRequest if the cursor is from another list or order.
    """
    window = read_window(session, listing, limit=limit, after=after, before=None)
    return Page(data=window.data, has_more=window.after is not None, next_after=window.after)


def read_window(
    session: Session, listing: Listing[Row, Item], *, limit: int, after: str | None, before: str | None
) -> Window[Item]:
    """Return the rows right after one cursor or right before another (`after` counts if both are given), in order.

    Raises InvalidRequest as `read_page` does, and where a search would read too much.
    """
    backwards = before is not None and after is None
    cursor = before if backwards else after
    order, ordering = listing.order, _Ordering(listing.order, listing.table, backwards)
    place = None if cursor is None else _decode(cursor, order, "before" if backwards else "after")
    shown: list[tuple[str, Item]] = []
    left, is_more = PAGE_BYTES, False
    while not is_more:
        fitting = _FIRST_ROWS if not shown else max(1, left * len(shown) // max(1, PAGE_BYTES - left))
        # A search costs more than its rows: it is made once.
        wanted = (limit - len(shown) if listing.having is not None else min(limit - len(shown), fitting)) + 1
        rows = _rows_after(session, listing, ordering, place, wanted)
        for row in rows:
            item = listing.answer(row)
            left -= _size_of(item)
            is_more = len(shown) == limit or (left < 0 and bool(shown))
            if is_more:
                break
            place = _Place(order.key_of(row), row.created_at, row.id)
            shown.append((_written(order, place), item))
        if len(rows) < wanted:
            break
    if backwards:
        shown.reverse()
    is_less = cursor is not None and bool(shown)
    first, last = (is_more, is_less) if backwards else (is_less, is_more)
    return Window(
        data=[item for _, item in shown],
        after=shown[-1][0] if last else None,
        before=shown[0][0] if first else None,
    )


def within_page(items: Iterable[Item]) -> list[Item]:
    """Return the first items that fit into a page, at least one if there are any."""
    left, shown = PAGE_BYTES, list[Item]()
    for item in items:
        left -= _size_of(item)
        if left < 0 and shown:
            break
        shown.append(item)
    return shown


def _size_of(item: object) -> int:
    """Return the number of bytes of a list's item as JSON; 0 for rows, whose lists make their items later."""
    return len(item.model_dump_json().encode()) if isinstance(item, BaseModel) else 0


def _rows_after(
    session: Session, listing: Listing[Row, Item], ordering: "_Ordering", place: "_Place | None", count: int
) -> list[Row]:
    rows: list[Row] = []
    for part in ordering.parts(place):
        if len(rows) < count:
            ordered = listing.query.where(*part).order_by(*ordering.columns())
            more = count - len(rows)
            rows.extend(
                session.scalars(ordered.limit(more))
                if listing.having is None
                else _first_having(session, ordered, listing.having, ordering, more)
            )
    return rows


_FRONT, _FURTHEST = 300, 1500
"""Numbers of rows at the front of an order that a search reads one by one: at first, and at most.

The second number applies if the first rows contain enough matches. If many rows match, the index would return far too
many of them.
"""
_MOST_MATCHES = 20_000
"""Largest number of matching rows from the index that are sorted."""
_INDEX_SETTINGS = text(
    "SELECT set_config('enable_indexscan', 'off', true), set_config('work_mem', '64MB', true),"
    " set_config('plan_cache_mode', 'force_custom_plan', true)"
)
"""Settings for a search by the GIN index.

They disable scans along the order. They give enough memory for the positions of all matches: with less, PostgreSQL
remembers pages instead of rows and checks every row of these pages again. They plan for the actual words: a generic
plan reads complete indexes to find the rarest word.
"""
_ORDER_SETTINGS = text("SELECT set_config('enable_indexscan', 'on', true)")


def _first_having(
    session: Session, ordered: Select[Row], having: ColumnElement[bool], ordering: "_Ordering", count: int
) -> Sequence[Row]:
    """Return the first rows that meet a condition: from the front of the order if common, otherwise by its index.

    Raises InvalidRequest if there are many such rows, but few at the front.
    """
    ids: list[str] = []
    seen, more = 0, _FRONT
    while seen + more <= _FURTHEST:
        front = aliased(ordering.table, ordered.offset(seen).limit(more).subquery())
        ids.extend(session.scalars(select(front.id).where(having).limit(count - len(ids))))
        if len(ids) == count:
            return _rows_of(session, ordered, ordering, ids)
        if not ids:
            break
        seen += more
        more = max(_FRONT, seen * (count - len(ids)) // len(ids))
    session.execute(_INDEX_SETTINGS)
    every = (
        ordered.with_only_columns(*ordering.named()).where(having).order_by(None).limit(_MOST_MATCHES + 1).subquery()
    )
    matches = session.execute(
        select(every.c.id, func.count().over()).order_by(*ordering.columns(every.c)).limit(count)
    ).all()
    session.execute(_ORDER_SETTINGS)
    if matches and matches[0][1] > _MOST_MATCHES:
        raise InvalidRequest(
            f"search: more than {_MOST_MATCHES} entries of this list have these words, but too few are at its "
            "beginning in this order: add a word or a filter, or choose another order",
            param="search",
        )
    return _rows_of(session, ordered, ordering, [row_id for row_id, _ in matches])


def _rows_of(session: Session, ordered: Select[Row], ordering: "_Ordering", ids: Sequence[str]) -> Sequence[Row]:
    return session.scalars(ordered.where(ordering.table.id.in_(ids))).all()


@dataclass(frozen=True)
class _Place:
    key: Key
    created_at: datetime
    id: str


class _Ordering:
    """Order over a table, read forwards or backwards, as SQL."""

    def __init__(self, order: Order, table: Any, backwards: bool) -> None:
        listed: _ListedTable = table
        self.table = table
        self._key = order.key
        self._creation = (listed.created_at, listed.id)
        self._backwards = backwards
        self._key_falls = order.descending != backwards
        self._creation_falls = (order.descending if order.key is None else True) != backwards

    def named(self) -> Sequence[ColumnElement[Any] | InstrumentedAttribute[Any]]:
        """Return the columns of a row's position, labelled for a subquery whose rows `columns` orders."""
        return [*self._creation, *([] if self._key is None else [self._key.label("key")])]

    def columns(self, places: Any = None) -> list[ColumnElement[Any]]:
        """Return the columns to order by: the table's, or the columns of a subquery that `named` has labelled."""
        columns = self._creation if places is None else (places.created_at, places.id)
        by_creation: list[ColumnElement[Any]] = [
            column.desc() if self._creation_falls else column.asc() for column in columns
        ]
        if self._key is None:
            return by_creation
        sorted_by = self._key if places is None else places.key
        key = sorted_by.desc() if self._key_falls else sorted_by.asc()
        return [key.nulls_first() if self._backwards else key.nulls_last(), *by_creation]

    def parts(self, place: _Place | None) -> list[list[ColumnElement[bool]]]:
        """Return the conditions for the rows after a position, one part after the other in their order.

        Each part is one range of the order's index; a single condition would read the index from its beginning.
        """
        if place is None:
            return [[]]
        here = tuple_(place.created_at, place.id)
        later: ColumnElement[bool] = (
            tuple_(*self._creation) < here if self._creation_falls else tuple_(*self._creation) > here
        )
        if self._key is None:
            return [[later]]
        if place.key is None:
            parts = [[self._key.is_(None), later]]
            return [*parts, [self._key.is_not(None)]] if self._backwards else parts
        further = self._key < place.key if self._key_falls else self._key > place.key
        parts = [[self._key == place.key, later], [further]]
        return parts if self._backwards else [*parts, [self._key.is_(None)]]


def cursor_of(order: Order, row: _Listed) -> str:
    """Return the cursor of a row's position in an order."""
    return _written(order, _Place(order.key_of(row), row.created_at, row.id))


def _written(order: Order, place: _Place) -> str:
    key = place.key.isoformat() if isinstance(place.key, datetime) else place.key
    cursor = [order.name, key, place.created_at.isoformat(), place.id]
    written = json.dumps(cursor, ensure_ascii=False, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(written).decode().rstrip("=")


def _decode(cursor: str, order: Order, param: str) -> _Place:
    try:
        decoded = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode())
        name, written_key, created_at, row_id = decoded
        if _text(name) != order.name:
            raise InvalidRequest(
                f"{param}: this cursor is of a list sorted by {name!r}, not by {order.name!r}", param=param
            )
        return _Place(_key(written_key, order), _moment(created_at), _text(row_id))
    except (ValueError, TypeError, RecursionError, binascii.Error):
        raise InvalidRequest(
            f"{param}: not a cursor of this list; use next_after of the page before", param=param
        ) from None


def _key(written: Any, order: Order) -> Key:
    if written is None:
        return None
    if order.key is None:
        raise ValueError(written)
    if order.kind is datetime and isinstance(written, str):
        return _moment(written)
    if order.kind is int and type(written) is int and abs(written) < 2**31:
        return written
    if order.kind is str:
        return _text(written)
    raise ValueError(written)


def _text(written: Any) -> str:
    """Return the text unchanged; raises ValueError if it cannot be stored: not a string, NUL, lone surrogates."""
    if not isinstance(written, str) or "\0" in written:
        raise ValueError(written)
    written.encode()
    return written


def _moment(written: str) -> datetime:
    moment = datetime.fromisoformat(written)
    if moment.tzinfo is None:
        raise ValueError(written)
    return moment
