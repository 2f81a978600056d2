"""What PostgreSQL does for each call: every statement the code itself sends is explained."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, event
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
    """The plans of a call's statements. Each is explained, and undone, right before it runs; so is the whole call."""
    engine: Engine = sessions.kw["bind"]
    plans: list[Plan] = []

    def before(_connection: Any, cursor: Any, sql: str, parameters: Any, _context: Any, many: bool) -> None:
        with cursor.connection.transaction(force_rollback=True):
            explained = cursor.connection.execute(
                f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}", parameters[0] if many else parameters
            )
            plans.append(_plan(sql, explained.fetchone()[0][0]))

    with sessions() as session:
        session.connection()
        event.listen(engine, "before_cursor_execute", before)
        try:
            call(session)
        finally:
            event.remove(engine, "before_cursor_execute", before)
        session.rollback()
    return plans


def _plan(sql: str, found: dict[str, Any]) -> Plan:
    nodes = list(_nodes(found["Plan"]))
    return Plan(
        sql=" ".join(sql.split()),
        indexes=tuple(sorted({node["Index Name"] for node in nodes if "Index Name" in node})),
        scanned=tuple(sorted({node["Relation Name"] for node in nodes if node["Node Type"] == "Seq Scan"} & {*LARGE})),
        milliseconds=found["Execution Time"],
        buffers=found["Plan"]["Shared Hit Blocks"] + found["Plan"]["Shared Read Blocks"],
    )


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)
