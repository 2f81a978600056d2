"""Rows of every table that grows: as many as are asked for, half of them the first team's."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Column, DateTime, Integer, LargeBinary, Table, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session, sessionmaker

from bench.queue_scale_fill import TEAM, UNCHECKED
from core.database import Base, transaction

_JOB = "'job_f' || lpad(number::text, 10, '0')"
_AGO = "now() - make_interval(secs => number * 2)"
"""Within the last three weeks for a million rows: nothing that a duty would remove."""
_HALF = "CASE WHEN number % 2 = 0 THEN 2 ELSE number END"
"""Number of the parent: half of all rows are of one."""


def _id(prefix: str, number: str = "number") -> str:
    return f"'{prefix}_' || lpad(({number})::text, 26, '0')"


_OVERRIDES: dict[str, Mapping[str, str]] = {
    "job_reports": {"report": """'{"model": {"family": "llama"}, "layers": []}'"""},
    "artifact_files": {"bytes": "1000000 + number % 1000"},
    "artifact_reads": {"read_at": f"{_AGO} - interval '2 hours'"},
    "idempotency_keys": {"expires_at": "now() + make_interval(secs => 3600 + number % 80000)"},
    "workers": {
        "queue": "'default'",
        "device": "'cpu'",
        "started_at": "now() - interval '20 hours'",
        "heartbeat_at": "now() - CASE WHEN number <= 100 THEN interval '0' ELSE interval '2 hours' END",
    },
    "api_keys": {"role": "'viewer'"},
    "portal_sessions": {"key_id": _id("key")},
    "models": {
        "name": "'model-' || number",
        "path": "(SELECT path FROM models LIMIT 1)",
        "source": "'folder'",
        "description": "(SELECT description FROM models LIMIT 1)",
    },
    "datasets": {"path": "'/nowhere/' || number", "format": "'text'", "source": "'folder'"},
    "uploads": {
        "kind": "'model'",
        "status": "CASE WHEN number % 1000 = 0 THEN 'open' ELSE 'complete' END",
        "object_id": _id("model"),
        "source": "'upload'",
    },
    "upload_files": {"path": "'config.json'"},
    "upload_parts": {"path": "'config.json'", "upload_id": _id("upload")},
    "webhooks": {
        "url": "'https://example.com/' || number",
        "enabled": "number % 100 <> 1",
        "disabled_reason": "CASE WHEN number % 100 = 1 THEN 'it failed' END",
        "disabled_at": f"CASE WHEN number % 100 = 1 THEN {_AGO} END",
    },
    "webhook_secrets": {},
    "webhook_events": {"type": "'job.succeeded'", "payload": "'{}'"},
    "webhook_deliveries": {
        "webhook_id": _id("webhook", _HALF),
        "type": "'job.succeeded'",
        "subject": _JOB,
        "state": "CASE WHEN number % 1000 = 1 THEN 'pending' ELSE 'delivered' END",
        "next_attempt_at": "now() + interval '1 day'",
        "finished_at": f"CASE WHEN number % 1000 = 1 THEN NULL ELSE {_AGO} END",
    },
    "webhook_attempts": {"status": "200"},
    "triggers": {
        "template": """'{"model": "tiny", "method": "magnitude", "sparsity": 0.5}'""",
        "cron": "'0 3 * * *'",
        "timezone": "'UTC'",
        "next_fire_at": "now() + interval '1 day'",
    },
    "trigger_firings": {
        "trigger_id": _id("trigger", _HALF),
        "source": "'schedule'",
        "outcome": "'ignored'",
        "event_id": "number::text",
        "job_id": _JOB,
    },
    "sweeps": {
        "status": "'succeeded'",
        "model": "'tiny'",
        "request": """'{"job": {"model": "tiny", "method": "magnitude"}, "grid": {"sparsity": [0.5]}}'""",
        "finished_at": _AGO,
    },
    "sweep_points": {
        "number": "0",
        "point_values": """'{"sparsity": 0.5}'""",
        "pattern": "'unstructured'",
        "job_id": _JOB,
    },
    "publications": {
        "job_id": f"'job_f' || lpad(({_HALF})::text, 10, '0')",
        "status": "'succeeded'",
        "place": "'hub:acme/' || number",
        "destination": '\'{"kind": "hub", "repository": "acme/pruned", "revision": null,'
        ' "private": true, "message": null}\'',
        "files": "1",
        "bytes": "1000",
        "result": """'{"url": "https://example.com", "commit": null}'""",
        "finished_at": _AGO,
    },
    "discoveries": {
        "state": "CASE WHEN number % 100 = 0 THEN 'failed' ELSE 'found' END",
        "description": "CASE WHEN number % 100 = 0 THEN NULL ELSE '{}'::jsonb END",
        "error": """CASE WHEN number % 100 = 0 THEN '{"code": "unsupported_model"}'::jsonb END""",
        "finished_at": _AGO,
        "used_at": _AGO,
    },
    "discovery_teams": {},
    "sample_requests": {"id": _id("samples"), "state": "'ready'", "finished_at": _AGO},
    "hub_revisions": {"reader": "'public'"},
}
"""Tables that are filled, and values of their columns that are not what any column of its kind is given."""

LARGE = frozenset({*_OVERRIDES, "jobs", "job_events", "job_attempts", "audit", "artifacts"})
"""Tables that grow with use. Teams, and totals by queue, method and the like, do not."""


def _columns(table: Table) -> dict[str, str]:
    """Return the columns of a table that are given a value, each with an expression of the row's number."""
    own = _OVERRIDES[table.name]
    given = {"created_at": _AGO} if "created_at" in table.columns else {}
    for column in table.columns:
        if not column.nullable and column.server_default is None and column.name not in own:
            given[column.name] = _value(column)
    return {**given, **own}


def _value(column: "Column[Any]") -> str:
    """Return what a column of this kind is given: the parent of the same number, and text, bytes and so on of it."""
    if column.name == "id":
        last = column.table.name.rpartition("_")[2]
        return _id(f"{last[:-3]}y" if last.endswith("ies") else last.removesuffix("s"))
    parents = [key.column for key in column.foreign_keys]
    if parents and parents[0].name == "id":
        known = {"teams": TEAM, "jobs": _JOB}
        return known.get(parents[0].table.name) or _value(parents[0])
    match column.type:
        case LargeBinary():
            return f"decode(md5('{column.name} ' || number), 'hex')"
        case JSONB():
            return "'{}'"
        case DateTime():
            return "now() + interval '11 hours'" if column.name.startswith("expires") else _AGO
        case Integer():
            return "1"
        case _:
            return f"'{column.name} ' || number"


def fill_tables(sessions: sessionmaker[Session], teams: list[str], rows: int) -> None:
    """Fill every table; as many jobs that ended are there."""
    for name in _OVERRIDES:
        columns = _columns(Base.metadata.tables[name])
        query = (
            f"INSERT INTO {name} ({', '.join(columns)}) SELECT {', '.join(columns.values())}"
            " FROM generate_series(1, CAST(:rows AS int)) AS number, (SELECT CAST(:teams AS text[]) AS teams) AS given"
        )
        with transaction(sessions) as session:
            if name != "artifact_files":  # whose triggers fill the table of artifacts
                session.execute(text(UNCHECKED))
            session.execute(text(query), {"rows": rows, "teams": teams})


@contextmanager
def without_indexes(sessions: sessionmaker[Session]) -> Iterator[None]:
    """Take away the indexes of large tables but for their keys while rows are added, which is faster by far."""
    with transaction(sessions) as session:
        indexes = session.execute(
            text("""
                SELECT indexrelid::regclass::text AS name, pg_get_indexdef(indexrelid) AS definition FROM pg_index
                WHERE indrelid::regclass::text = ANY (:tables) AND NOT indisprimary
                    AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)
            """),
            {"tables": [*LARGE]},
        ).all()
        for index in indexes:
            session.execute(text(f"DROP INDEX {index.name}"))
    yield
    with transaction(sessions) as session:
        session.execute(text("SET LOCAL maintenance_work_mem = '512MB'"))
        for index in indexes:
            session.connection().exec_driver_sql(index.definition)
    with sessions.kw["bind"].connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
        connection.execute(text("CHECKPOINT"))
