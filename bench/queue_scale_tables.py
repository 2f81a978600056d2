"""A database as it is after years: finished jobs with their attempts and events, a long queue, and rows of every table
that grows, half of them the first team's.
"""

import json
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Column, DateTime, Integer, LargeBinary, Table, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session, sessionmaker

from core.database import Base, transaction
from core.service.jobs.estimates.resources import ResourceEstimate
from core.service.jobs.schemas import JobBody
from core.service.registry.schemas import ModelBody
from core.service.registry.service import read_model, register_model
from core.service.teams.bootstrap import create_team
from core.service.teams.tables import TeamRow
from core.settings import Settings
from tests.model_folders import write_llama

MODEL = "tiny"
EVENTS_PER_JOB = 4

TEAM = (
    "CASE number % 2 WHEN 0 THEN teams[1]"
    " ELSE teams[least(2 + number / 2 % greatest(array_length(teams, 1) - 1, 1), array_length(teams, 1))] END"
)
"""Team of a row by its number: half of all are the first's."""
_JOBS = f"""
    INSERT INTO jobs (
        id, team_id, status, stage, progress, attempt, attempts_allowed, last_event, body, sources, model,
        model_revision, method, queue, priority, metadata, metrics, created_at, available_at, dispatched_at,
        started_at, finished_at
    )
    SELECT
        'job_' || :kind || lpad(number::text, 10, '0'), {TEAM}, status, 'store',
        CASE WHEN status = 'queued' THEN 0 ELSE 1 END, attempt, 3, :events, CAST(:body AS jsonb),
        CAST(:sources AS jsonb), 'model-' || number % 200, 'sha256:0', (ARRAY['magnitude', 'wanda', 'sparsegpt'])
        [1 + number % 3], 'default', priority, jsonb_build_object('commit', md5(number::text)),
        CASE WHEN status = 'succeeded' THEN CAST(:metrics AS jsonb) END, created, created,
        CASE WHEN status <> 'queued' THEN created END, finished - interval '10 minutes', finished
    FROM (
        SELECT
            number, CAST(:teams AS text[]) AS teams,
            CASE WHEN :kind = 'q' THEN 'queued' WHEN number % 20 = 0 THEN 'failed' ELSE 'succeeded' END AS status,
            CASE WHEN :kind = 'q' THEN 0 ELSE 1 END AS attempt,
            CASE number % 10 WHEN 0 THEN 5 WHEN 1 THEN -5 ELSE 0 END AS priority,
            now() - make_interval(secs => CAST(:count AS int) - number) * :spread AS created,
            CASE WHEN :kind <> 'q'
                 THEN now() - make_interval(secs => CAST(:count AS int) - number) * :spread + interval '1 hour' END
                AS finished
        FROM generate_series(1, CAST(:count AS int)) AS number
    ) AS made
"""
_ATTEMPTS = """
    INSERT INTO job_attempts (
        job_id, attempt, team_id, queue, method, worker_id, started_at, ended_at, outcome, stages, needs,
        measured, counted
    )
    SELECT id, 1, team_id, queue, method, 'worker_1', started_at, finished_at, status, '{"prune": 500}',
        CAST(:needs AS jsonb), CASE WHEN status = 'succeeded' THEN CAST(:measured AS jsonb) END, true
    FROM jobs WHERE finished_at IS NOT NULL
"""
_EVENTS = """
    INSERT INTO job_events (job_id, sequence, type, attempt, data, created_at)
    SELECT id, number, 'progress', 1, jsonb_build_object('progress', 0.5, 'block', number, 'blocks', 30), finished_at
    FROM jobs CROSS JOIN generate_series(1, CAST(:events AS int)) AS number WHERE finished_at IS NOT NULL
"""
UNCHECKED = "SET LOCAL session_replication_role = replica"
"""Statement before which foreign keys are checked, and triggers run, for each row."""
_AUDIT = """
    INSERT INTO audit (id, team_id, action, object_id, details, created_at)
    SELECT 'audit_' || id, team_id, 'job.submit', id, '{}', created_at FROM jobs
"""


def fill(sessions: sessionmaker[Session], settings: Settings, *, teams: int, finished: int, queued: int) -> list[str]:
    """Ids of the teams; each has a model registered as MODEL. Weights are 1, 2 and 3."""
    folder = write_llama(settings.models_root / MODEL, layers=1)
    with transaction(sessions) as session:
        ids = [create_team(session, f"team {number}") for number in range(teams)]
        for number, team in enumerate(ids):
            register_model(session, team, read_model(ModelBody(name=MODEL, path=str(folder)), settings))
            session.scalars(select(TeamRow).where(TeamRow.id == team)).one().weight = 1 + number % 3
    for kind, count, spread in (("f", finished, 30), ("q", queued, 1)):
        with transaction(sessions) as session:
            values: dict[str, object] = {
                "kind": kind,
                "count": count,
                "spread": spread,
                "teams": ids,
                "events": EVENTS_PER_JOB if kind == "f" else 1,
                "body": json.dumps(_body()),
                "sources": json.dumps(_sources(folder)),
                "metrics": json.dumps(_METRICS),
            }
            session.execute(text(UNCHECKED))
            session.execute(text(_JOBS), values)
    needs = ResourceEstimate(peak_memory_bytes=2**31, peak_device_memory_bytes=None, disk_bytes=2**30, seconds=600)
    measured = needs.model_dump(mode="json")
    attempts: dict[str, object] = {
        "needs": json.dumps({"basis": {"formula": measured}, **measured}),
        "measured": json.dumps(measured),
    }
    more: list[tuple[str, dict[str, object]]] = [
        (_ATTEMPTS, attempts),
        (_EVENTS, {"events": EVENTS_PER_JOB}),
        (_AUDIT, {}),
    ]
    for statement, values in more:
        with transaction(sessions) as session:
            session.execute(text(UNCHECKED))
            session.execute(text(statement), values)
    return ids


def job_body() -> JobBody:
    """Return the body that the bench submits; it is checked in full, like any other."""
    return JobBody(model=MODEL, method="magnitude", sparsity=0.5, metadata={"commit": "abc"})


def _body() -> dict[str, object]:
    return job_body().model_dump(mode="json") | {"pattern": "unstructured"}


def _sources(folder: Path) -> dict[str, object]:
    model = {"kind": "folder", "name": MODEL, "path": str(folder), "revision": "sha256:0"}
    return {"model": model, "calibration": None, "evaluation": []}


_METRICS = {
    "perplexity": {"wikipedia": {"dense": 25.0, "pruned": 56.2, "ratio": 2.25, "sequence_length": 512}},
    "sparsity": {"prunable": 0.5, "model": 0.39},
    "parameters": {"dense": 134515008, "nonzero": 81430848},
    "seconds": {"prune": 500, "total": 600},
}


_JOB = "'job_f' || lpad(number::text, 10, '0')"
_AGO = "now() - make_interval(secs => number * 2)"
"""Within the last three weeks for a million rows: nothing that a duty would remove."""


def _id(prefix: str, number: str = "number") -> str:
    return f"'{prefix}_' || lpad(({number})::text, 26, '0')"


DATA: Final[dict[str, Any]] = tomllib.loads(Path(__file__).with_name("queue_scale.toml").read_text("utf-8"))
_OVERRIDES: Final[dict[str, dict[str, str]]] = DATA["tables"]
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
