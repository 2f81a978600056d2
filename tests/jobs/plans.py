"""PostgreSQL's plans of the statements that a call sends."""

import json
from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import Session


def plans_of(session: Session, call: Callable[[Session], object]) -> list[dict[str, Any]]:
    """The plan of each statement, which is explained, and undone, right before it runs."""
    found: list[dict[str, Any]] = []

    def explain(_connection: Any, cursor: Any, sql: str, parameters: Any, _context: Any, _many: bool) -> None:
        with cursor.connection.transaction(force_rollback=True):
            plan = cursor.connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", parameters).fetchone()[0]
        found.append((json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"])

    engine = session.get_bind()
    session.connection()
    event.listen(engine, "before_cursor_execute", explain)
    try:
        call(session)
    finally:
        event.remove(engine, "before_cursor_execute", explain)
    assert found
    return found


def nodes_of(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes_of(child)
