"""What PostgreSQL does for each call: every statement the code itself sends is explained."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.orm import Session, sessionmaker

from bench.queue_scale_tables import LARGE

_EXPLAINED = ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")


@dataclass(frozen=True)
class Plan:
    """`indexes` it reads, the `milliseconds` it ran (and was undone), buffers it touched, large tables it scanned.

    `rows` is the most that one of its steps read of a large table, those included that did not match.
    """

    sql: str
    indexes: tuple[str, ...]
    scanned: tuple[str, ...]
    milliseconds: float
    buffers: int
    rows: int


def explain(sessions: sessionmaker[Session], call: Callable[[Session], object]) -> list[Plan]:
    """The plans of a call's statements; the whole call is undone."""
    with sessions() as session:
        plans = [_plan(sql, found) for sql, found in explained(session, call)]
        session.rollback()
    return plans


def explain_anywhere(call: Callable[[], object]) -> list[Plan]:
    """Return the plans of the statements that a call sends, by whatever sessions; what the call does stays done."""
    with _explaining(Engine) as found:
        call()
    return [_plan(sql, answer) for sql, answer in found]


def explained(session: Session, call: Callable[[Session], object]) -> list[tuple[str, dict[str, Any]]]:
    """Each statement of a call, and what PostgreSQL says of it: explained, and undone, right before it runs."""
    session.connection()
    with _explaining(session.get_bind()) as found:
        call(session)
    assert found
    return found


@contextmanager
def _explaining(target: Any) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    found: list[tuple[str, dict[str, Any]]] = []

    def before(_connection: Any, cursor: Any, sql: str, parameters: Any, _context: Any, many: bool) -> None:
        if not sql.lstrip().startswith(_EXPLAINED):
            return
        with cursor.connection.transaction(force_rollback=True):
            answer = cursor.connection.execute(
                f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}", parameters[0] if many else parameters
            )
            found.append((sql, answer.fetchone()[0][0]))

    event.listen(target, "before_cursor_execute", before)
    try:
        yield found
    finally:
        event.remove(target, "before_cursor_execute", before)


def nodes_of(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The node and all below it."""
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes_of(child)


def _plan(sql: str, found: dict[str, Any]) -> Plan:
    nodes = list(nodes_of(found["Plan"]))
    of_large = [node for node in nodes if node.get("Relation Name") in LARGE]
    return Plan(
        sql=" ".join(sql.split()),
        indexes=tuple(sorted({node["Index Name"] for node in nodes if "Index Name" in node})),
        scanned=tuple(sorted({node["Relation Name"] for node in of_large if node["Node Type"] == "Seq Scan"})),
        milliseconds=found["Execution Time"],
        buffers=found["Plan"]["Shared Hit Blocks"] + found["Plan"]["Shared Read Blocks"],
        rows=max((_rows(node) for node in of_large), default=0),
    )


def _rows(node: dict[str, Any]) -> int:
    names = ("Actual Rows", "Rows Removed by Filter", "Rows Removed by Index Recheck")
    return int(sum(node.get(name, 0) for name in names) * node["Actual Loops"])
