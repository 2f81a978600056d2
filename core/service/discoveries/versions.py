"""Versions of the library that discovers models: each worker reports its own."""

import re
from typing import NamedTuple

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from core.database import seconds_from_now
from core.service.discoveries.tables import LibraryVersionRow

_FRESH_SECONDS = 600.0
"""A version that was reported within this time is preferred to others."""
_NOTED_SECONDS = 60.0
_FORGOTTEN_SECONDS = 90 * 24 * 3600.0


class _Rank(NamedTuple):
    is_of_queue: bool
    is_fresh: bool
    version: tuple[int, ...]


def note_version(session: Session, queue: str, version: str) -> None:
    """Record that a worker of this queue has this version; written about once a minute."""
    seen = insert(LibraryVersionRow).values(queue=queue, transformers_version=version)
    session.execute(
        seen.on_conflict_do_update(
            index_elements=["queue", "transformers_version"],
            set_={"seen_at": func.clock_timestamp()},
            where=LibraryVersionRow.seen_at < seconds_from_now(-_NOTED_SECONDS),
        )
    )


def version_for(session: Session, queue: str | None) -> str | None:
    """Return the newest version of the queue's workers, else the newest of any worker; None where none is known."""
    rows = session.execute(
        select(
            LibraryVersionRow.queue,
            LibraryVersionRow.transformers_version,
            (LibraryVersionRow.seen_at > seconds_from_now(-_FRESH_SECONDS)).label("is_fresh"),
        ).where(LibraryVersionRow.seen_at > seconds_from_now(-_FORGOTTEN_SECONDS))
    )
    ranked = [
        (_Rank(row.queue == queue, row.is_fresh, _numbers(row.transformers_version)), row.transformers_version)
        for row in rows
    ]
    return max(ranked)[1] if ranked else None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"[0-9]{1,9}", version))
