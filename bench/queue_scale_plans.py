"""What PostgreSQL does for each call: every statement the code itself sends is explained."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import Session, sessionmaker

LARGE = ("jobs", "job_events", "job_attempts", "audit")
"""Tables that grow with the jobs: none of them may be read from end to end."""


@dataclass(frozen=True)
class Plan:
    """`indexes` it reads, the `milliseconds` it ran (and was undone), buffers it touched, large tables it scanned."""

    sql: str
    indexes: tuple[str, ...]
    scanned: tuple[str, ...]
    milliseconds: float
    buffers: int


def explain(sessions: sessionmaker[Session], call: Callable[[Session], object]) -> list[Plan]:
    """The plans of a call's statements; the whole call is undone."""
    with sessions() as session:
        plans = [_plan(sql, found) for sql, found in explained(session, call)]
        session.rollback()
    return plans


def explained(session: Session, call: Callable[[Session], object]) -> list[tuple[str, dict[str, Any]]]:
    """Each statement of a call, and what PostgreSQL says of it: explained, and undone, right before it runs."""
    engine = session.get_bind()
    found: list[tuple[str, dict[str, Any]]] = []

    def before(_connection: Any, cursor: Any, sql: str, parameters: Any, _context: Any, many: bool) -> None:
        with cursor.connection.transaction(force_rollback=True):
            answer = cursor.connection.execute(
                f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}", parameters[0] if many else parameters
            )
            found.append((sql, answer.fetchone()[0][0]))

    session.connection()
    event.listen(engine, "before_cursor_execute", before)
    try:
        call(session)
    finally:
        event.remove(engine, "before_cursor_execute", before)
    assert found
    return found


def nodes_of(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The node and all below it."""
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes_of(child)


def _plan(sql: str, found: dict[str, Any]) -> Plan:
    nodes = list(nodes_of(found["Plan"]))
    return Plan(
        sql=" ".join(sql.split()),
        indexes=tuple(sorted({node["Index Name"] for node in nodes if "Index Name" in node})),
        scanned=tuple(sorted({node["Relation Name"] for node in nodes if node["Node Type"] == "Seq Scan"} & {*LARGE})),
        milliseconds=found["Execution Time"],
        buffers=found["Plan"]["Shared Hit Blocks"] + found["Plan"]["Shared Read Blocks"],
    )
