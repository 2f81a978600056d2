"""Artifacts of jobs that ended, as rows alone, many at once."""

import json
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from core.database import new_id, transaction

COMMON: dict[str, Any] = {
    "attempts_allowed": 3,
    "attempt": 1,
    "body": {"recovery": None},
    "sources": {},
    "model_revision": "sha256:0",
    "queue": "default",
    "priority": 0,
}


def add_many(sessions: sessionmaker[Session], team_id: str, count: int, *, days: float, **labels: str) -> None:
    """Add so many artifacts of a byte each, of jobs that ended so many days ago, a second after one another."""
    values = {
        "count": count,
        "days": days,
        "team": team_id,
        "name": new_id("job"),
        "common": json.dumps(COMMON),
        "labels": json.dumps(labels),
    }
    with transaction(sessions) as session:
        session.execute(
            text("""
                INSERT INTO jobs (id, team_id, status, model, method, metadata, finished_at, attempt, attempts_allowed,
                    body, sources, model_revision, queue, priority)
                SELECT :name || lpad(number::text, 6, '0'), :team, 'succeeded', 'oak', 'wanda', CAST(:labels AS jsonb),
                    now() - make_interval(secs => 86400 * :days - number),
                    common.attempt, common.attempts_allowed, common.body, common.sources, common.model_revision,
                    common.queue, common.priority
                FROM generate_series(1, :count) AS number
                CROSS JOIN jsonb_populate_record(NULL::jobs, CAST(:common AS jsonb)) AS common
            """),
            values,
        )
        session.execute(
            text("""
                INSERT INTO artifact_files (job_id, attempt, path, bytes, sha256)
                SELECT id, 1, 'model.safetensors', 1, '' FROM jobs WHERE id LIKE :name || '%'
            """),
            values,
        )
