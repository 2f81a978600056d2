"""Rows of every table that grows: as many as are asked for, half of them the first team's."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from bench.queue_scale_fill import UNCHECKED
from core.database import transaction

_TEAM = "CASE number % 2 WHEN 0 THEN teams[1] ELSE teams[2 + number / 2 % (array_length(teams, 1) - 1)] END"
_JOB = "'job_f' || lpad(number::text, 10, '0')"
_AGO = "now() - make_interval(secs => number * 2)"
"""Within the last three weeks for a million rows: nothing that a duty would remove."""
_HALF = "CASE WHEN number % 2 = 0 THEN 2 ELSE number END"
"""Number of the parent: half of all rows are of one."""


def _id(prefix: str, number: str = "number") -> str:
    return f"'{prefix}_' || lpad(({number})::text, 26, '0')"


_TABLES: dict[str, Mapping[str, str]] = {
    "job_reports": {"job_id": _JOB, "attempt": "1", "report": """'{"model": {"family": "llama"}, "layers": []}'"""},
    "artifact_files": {
        "job_id": _JOB,
        "attempt": "1",
        "path": "'model.safetensors'",
        "bytes": "1000000 + number % 1000",
        "sha256": "md5(number::text)",
    },
    "artifact_reads": {"job_id": _JOB, "read_at": f"{_AGO} - interval '2 hours'"},
    "idempotency_keys": {
        "team_id": _TEAM,
        "key_hash": "decode(md5(number::text), 'hex')",
        "request_hash": "decode(md5('r' || number), 'hex')",
        "expires_at": "now() + make_interval(secs => 3600 + number % 80000)",
    },
    "workers": {
        "id": _id("worker"),
        "queue": "'default'",
        "device": "'cpu'",
        "hostname": "'host-' || number",
        "pid": "number",
        "started_at": "now() - interval '20 hours'",
        "heartbeat_at": "now() - CASE WHEN number <= 100 THEN interval '0' ELSE interval '2 hours' END",
    },
    "api_keys": {
        "id": _id("key"),
        "team_id": _TEAM,
        "name": "'key ' || number",
        "role": "'viewer'",
        "prefix": "'sct_' || number",
        "digest": "decode(md5(number::text), 'hex')",
        "created_at": _AGO,
    },
    "portal_sessions": {
        "digest": "decode(md5('s' || number), 'hex')",
        "key_id": _id("key"),
        "expires_at": "now() + interval '11 hours'",
    },
    "models": {
        "id": _id("model"),
        "team_id": _TEAM,
        "name": "'model-' || number",
        "path": "(SELECT path FROM models LIMIT 1)",
        "source": "'folder'",
        "revision": "'sha256:' || number",
        "description": "(SELECT description FROM models LIMIT 1)",
        "created_at": _AGO,
    },
    "datasets": {
        "id": _id("dataset"),
        "team_id": _TEAM,
        "name": "'text-' || number",
        "path": "'/nowhere/' || number",
        "format": "'text'",
        "text_field": "'text'",
        "source": "'folder'",
        "documents": "1",
        "characters": "1000",
        "bytes": "1000",
        "sha256": "md5(number::text)",
        "created_at": _AGO,
    },
    "uploads": {
        "id": _id("upload"),
        "team_id": _TEAM,
        "kind": "'model'",
        "name": "'upload-' || number",
        "status": "CASE WHEN number % 1000 = 0 THEN 'open' ELSE 'complete' END",
        "object_id": _id("model"),
        "text_field": "'text'",
        "source": "'upload'",
        "bytes": "0",
        "part_bytes": "1000",
        "expires_at": "now() + interval '1 day'",
        "created_at": _AGO,
    },
    "upload_files": {"upload_id": _id("upload"), "path": "'config.json'", "bytes": "1", "sha256": "md5('')"},
    "upload_parts": {
        "upload_id": _id("upload"),
        "path": "'config.json'",
        "start": "0",
        "bytes": "1",
        "place": "'0'",
    },
    "webhooks": {
        "id": _id("webhook"),
        "team_id": _TEAM,
        "url": "'https://example.com/' || number",
        "description": "''",
        "enabled": "number % 100 <> 1",
        "disabled_reason": "CASE WHEN number % 100 = 1 THEN 'it failed' END",
        "disabled_at": f"CASE WHEN number % 100 = 1 THEN {_AGO} END",
        "created_at": _AGO,
    },
    "webhook_secrets": {"id": _id("secret"), "webhook_id": _id("webhook"), "sealed": "'\\x00'", "created_at": _AGO},
    "webhook_events": {
        "id": _id("event"),
        "team_id": _TEAM,
        "type": "'job.succeeded'",
        "payload": "'{}'",
        "created_at": _AGO,
    },
    "webhook_deliveries": {
        "id": _id("delivery"),
        "webhook_id": _id("webhook", _HALF),
        "event_id": _id("event"),
        "type": "'job.succeeded'",
        "subject": _JOB,
        "state": "CASE WHEN number % 1000 = 1 THEN 'pending' ELSE 'delivered' END",
        "next_attempt_at": "now() + interval '1 day'",
        "created_at": _AGO,
        "finished_at": f"CASE WHEN number % 1000 = 1 THEN NULL ELSE {_AGO} END",
    },
    "webhook_attempts": {
        "delivery_id": _id("delivery"),
        "attempt": "1",
        "started_at": _AGO,
        "milliseconds": "5",
        "status": "200",
    },
    "triggers": {
        "id": _id("trigger"),
        "team_id": _TEAM,
        "name": "'trigger ' || number",
        "template": """'{"model": "tiny", "method": "magnitude", "sparsity": 0.5}'""",
        "placeholders": "'{}'",
        "token_digest": "decode(md5(number::text), 'hex')",
        "cron": "'0 3 * * *'",
        "timezone": "'UTC'",
        "next_fire_at": "now() + interval '1 day'",
        "created_at": _AGO,
    },
    "trigger_versions": {
        "id": _id("version"),
        "trigger_id": _id("trigger", _HALF),
        "number": "number",
        "definition": """'{"name": "trigger", "template": {}, "placeholders": {}}'""",
        "created_at": _AGO,
    },
    "trigger_firings": {
        "id": _id("firing"),
        "trigger_id": _id("trigger", _HALF),
        "source": "'schedule'",
        "outcome": "'ignored'",
        "event_id": "number::text",
        "job_id": _JOB,
        "created_at": _AGO,
    },
    "sweeps": {
        "id": _id("sweep"),
        "team_id": _TEAM,
        "status": "'succeeded'",
        "model": "'tiny'",
        "model_revision": "'sha256:0'",
        "max_concurrent": "2",
        "request": """'{"job": {"model": "tiny", "method": "magnitude"}, "grid": {"sparsity": [0.5]}}'""",
        "created_at": _AGO,
        "finished_at": _AGO,
    },
    "sweep_points": {
        "sweep_id": _id("sweep"),
        "number": "0",
        "point_values": """'{"sparsity": 0.5}'""",
        "body": "'{}'",
        "pattern": "'unstructured'",
        "job_id": _JOB,
    },
    "publications": {
        "id": _id("publication"),
        "team_id": _TEAM,
        "job_id": "'job_f' || lpad((CASE WHEN number % 2 = 0 THEN 2 ELSE number END)::text, 10, '0')",
        "job_attempt": "1",
        "actor": "'operator'",
        "status": "'succeeded'",
        "place": "'hub:acme/' || number",
        "destination": '\'{"kind": "hub", "repository": "acme/pruned", "revision": null,'
        ' "private": true, "message": null}\'',
        "files": "1",
        "bytes": "1000",
        "result": """'{"url": "https://example.com", "commit": null}'""",
        "created_at": _AGO,
        "expires_at": "now() + interval '1 day'",
        "finished_at": _AGO,
    },
    "discoveries": {
        "id": _id("discovery"),
        "team_id": _TEAM,
        "architecture": "'LlamaForCausalLM'",
        "transformers_version": "'5.0.0'",
        "state": "CASE WHEN number % 100 = 0 THEN 'failed' ELSE 'found' END",
        "description": "CASE WHEN number % 100 = 0 THEN NULL ELSE '{}'::jsonb END",
        "error": """CASE WHEN number % 100 = 0 THEN '{"code": "unsupported_model"}'::jsonb END""",
        "created_at": _AGO,
        "finished_at": _AGO,
        "used_at": _AGO,
    },
    "discovery_teams": {"discovery_id": _id("discovery"), "team_id": _TEAM},
    "sample_requests": {
        "id": _id("samples"),
        "team_id": _TEAM,
        "state": "'ready'",
        "created_at": _AGO,
        "finished_at": _AGO,
    },
    "hub_revisions": {
        "reader": "'public'",
        "repository": "'acme/model-' || number",
        "revision": "md5(number::text)",
        "description": "'{}'",
        "files": "'{}'",
        "created_at": _AGO,
    },
}
"""Tables with their columns, each an expression of the row's number."""

LARGE = frozenset({*_TABLES, "jobs", "job_events", "job_attempts", "audit", "artifacts"})
"""Tables that grow with use. Teams, and totals by queue, method and the like, do not."""


def fill_tables(sessions: sessionmaker[Session], teams: list[str], rows: int) -> None:
    """Fill every table; as many jobs that ended are there."""
    for name, columns in _TABLES.items():
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
