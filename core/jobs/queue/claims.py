"""Claiming a job, keeping it, and giving it back."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Row, bindparam, func, text, update
from sqlalchemy.orm import Session

from core.database import new_id, seconds_from_now
from core.jobs.baseline import Baseline
from core.jobs.queue.attempts import Ending
from core.jobs.queue.ends import finish_cancelled
from core.jobs.queue.told import tell_webhooks
from core.jobs.queue.trail import STARTED
from core.jobs.queue.writes import EVENT_CHANNEL, move
from core.jobs.references import (
    ImageReference,
    ModelReference,
    TaskReference,
    TextReference,
    image_references,
    model_references,
    text_references,
)
from core.jobs.states import HELD, JobStatus
from core.jobs.tables import JobRow

_CLAIM_LOCKS = 0x5ECA << 32
"""Advisory locks of queues: this, and a hash of the queue's name."""


@dataclass(frozen=True)
class ClaimedImages:
    """What a job on an image classifier calibrates, trains and is measured on."""

    calibration: ImageReference | None
    recovery: ImageReference | None
    evaluation: tuple[ImageReference, ...]


@dataclass(frozen=True)
class Claim:
    """A job in a worker's hands. `body` is the request with defaults; `generated` what the model
    writes to calibrate on beside `calibration`; `recovery` the texts it trains on, none
    where it does not; `images` in place of all texts where the model is an image classifier; `baseline` what earlier
    jobs measured of the dense model; `previous_attempts` are newest first.
    """

    job_id: str
    attempt: int
    team_id: str
    body: dict[str, Any]
    model: ModelReference
    calibration: TextReference | None
    generated: TextReference | None
    evaluation: tuple[TextReference, ...]
    tasks: tuple[TaskReference, ...]
    recovery: tuple[TextReference, ...]
    teacher: ModelReference | None
    images: ClaimedImages | None
    baseline: Baseline | None
    previous_attempts: tuple[int, ...]
    estimate: dict[str, Any] | None
    request_id: str | None
    traceparent: str | None


_TAKE_TURNS = text("""
    SELECT
        set_config('idle_in_transaction_session_timeout', :longest_turn, true),
        pg_advisory_xact_lock(:turn)
    FROM (
        SELECT FROM jobs WHERE status = 'queued' AND queue = :queue ORDER BY priority DESC, created_at, id LIMIT 1
    ) AS waiting
""")
"""No row, and no lock taken, where nothing waits in the queue. The order is the index's: without it PostgreSQL may look
for a row that waits among the many that do not."""

_LONGEST_TURN = "5s"
"""A worker that freezes in its turn, or is cut off, loses it: the server ends its session, and the others go on."""

_WAITS = """
    team_id = {team} AND queue = :queue AND status = 'queued' AND available_at <= clock_timestamp()
    ORDER BY priority DESC, created_at, id
    LIMIT 1
"""
_MAY_RUN = """
    (max_running IS NULL OR running < max_running)
    AND (
        max_device_seconds IS NULL
        OR max_device_seconds >
            CASE device_month WHEN date_trunc('month', clock_timestamp(), 'UTC') THEN device_seconds ELSE 0 END
    )
"""
_CANDIDATES = f"""
    SELECT teams.id AS team_id, running / weight AS share, best.priority, best.created_at, best.id
    FROM waiting
    JOIN teams ON teams.id = waiting.team_id
    CROSS JOIN LATERAL (
        SELECT priority, created_at, id FROM jobs WHERE {_WAITS.format(team="teams.id")}
    ) AS best
    WHERE {_MAY_RUN}
    ORDER BY priority DESC, share, created_at, id
"""
_WAITING_TEAMS = """
    WITH RECURSIVE waiting (team_id) AS (
        (SELECT team_id FROM jobs WHERE status = 'queued' ORDER BY team_id LIMIT 1)
        UNION ALL
        SELECT (
            SELECT jobs.team_id FROM jobs
            WHERE jobs.status = 'queued' AND jobs.team_id > waiting.team_id ORDER BY jobs.team_id LIMIT 1
        )
        FROM waiting WHERE waiting.team_id IS NOT NULL
    )
"""
_CLAIM = text(f"""
    {_WAITING_TEAMS},
    picked AS MATERIALIZED (
        SELECT job.id, team.id AS team_id
        FROM ({_CANDIDATES}) AS candidate
        CROSS JOIN LATERAL (
            SELECT id FROM teams WHERE id = candidate.team_id AND {_MAY_RUN} FOR NO KEY UPDATE SKIP LOCKED
        ) AS team
        CROSS JOIN LATERAL (
            SELECT id FROM jobs WHERE {_WAITS.format(team="team.id")} FOR NO KEY UPDATE SKIP LOCKED
        ) AS job
        ORDER BY candidate.priority DESC, candidate.share, candidate.created_at, candidate.id
        LIMIT 1
    ),
    counted AS (
        UPDATE teams SET running = running + 1 FROM picked WHERE teams.id = picked.team_id
    ),
    taken AS (
        UPDATE jobs
        SET status = 'running', attempt = attempt + 1, last_event = last_event + 1, stage = 'fetch', progress = 0,
            worker_id = :worker, started_at = clock_timestamp(),
            lease_expires_at = clock_timestamp() + make_interval(secs => :lease_seconds)
        FROM picked
        WHERE jobs.id = picked.id
        RETURNING jobs.*
    ),
    attempted AS (
        INSERT INTO job_attempts (job_id, attempt, team_id, queue, method, worker_id, started_at, needs)
        SELECT id, attempt, team_id, queue, method, worker_id, started_at, estimate FROM taken
    ),
    told AS (
        INSERT INTO job_events (job_id, sequence, type, attempt, data)
        SELECT id, last_event, 'status', attempt, jsonb_build_object('status', status, 'worker', worker_id) FROM taken
    ),
    noted AS (
        INSERT INTO audit (id, team_id, actor, action, object_id, details, address)
        SELECT
            :audit_id, taken.team_id, 'worker:' || taken.worker_id, :action, taken.id,
            jsonb_build_object('status', taken.status, 'attempt', taken.attempt), workers.hostname
        FROM taken LEFT JOIN workers ON workers.id = taken.worker_id
    )
    SELECT taken.*, pg_notify(:channel, taken.id) AS woken,
        EXISTS (SELECT FROM webhooks WHERE webhooks.team_id = taken.team_id AND webhooks.enabled) AS has_webhooks
    FROM taken
""").bindparams(bindparam("channel", EVENT_CHANNEL), bindparam("action", STARTED))
"""One row at most, and no lock that is waited for: a team whose row another transaction holds is passed over, whatever
that transaction does and however long.

`waiting` steps through the index from team to team (teams that wait in other queues only are dropped by `best`), the
best row of each team is the first of its part of the index, and only one row is locked, after its team's: `candidate`
is in order already, so the rows of its joins come in order, and the first is enough.
"""

_IS_HELD_UP = text(f"{_WAITING_TEAMS} SELECT EXISTS ({_CANDIDATES})")


class HeldUp(Exception):
    """Jobs may run, but other transactions hold their rows or their teams' at this moment: ask again in a moment."""


def claim(session: Session, *, queue: str, worker_id: str, lease_seconds: float) -> Claim | None:
    """Take the best eligible job of a queue: by priority, then the team with the fewest running jobs for its weight,
    then age. None where nothing is eligible; raises HeldUp where whatever is eligible is held by other transactions.

    The claims of one queue take turns, from here to the commit, so of two workers the second sees the first's job
    counted: fair shares are exact within a queue, and quotas everywhere, since they are checked again on the team's
    locked row. Whoever holds a team's row keeps that team alone from being served. One statement does it all, but for
    webhooks, where the team has some; whatever it costs, it does not grow with the rows that wait.
    """
    turn = {"turn": _CLAIM_LOCKS | zlib.crc32(queue.encode()), "longest_turn": _LONGEST_TURN}
    if session.execute(_TAKE_TURNS, {"queue": queue, **turn}).one_or_none() is None:
        return None
    values = {"queue": queue, "worker": worker_id, "lease_seconds": lease_seconds, "audit_id": new_id("audit")}
    row = session.execute(_CLAIM, values).one_or_none()
    if row is None:
        if session.scalar(_IS_HELD_UP, {"queue": queue}):
            raise HeldUp
        return None
    if row.has_webhooks:
        tell_webhooks(session, row.id, row.team_id, "running")
    return _claim_of(row)


def _claim_of(row: Row[Any]) -> Claim:
    sources = row.sources
    calibration, generated, recovery, teacher = (
        sources.get(name) for name in ("calibration", "generated", "recovery", "teacher")
    )
    trained_on = recovery if isinstance(recovery, list) else [recovery] if recovery else []  # one, in older jobs
    return Claim(
        job_id=row.id,
        attempt=row.attempt,
        team_id=row.team_id,
        body=row.body,
        model=model_references.validate_python(sources["model"]),
        calibration=None if calibration is None else text_references.validate_python(calibration),
        generated=None if generated is None else text_references.validate_python(generated),
        evaluation=tuple(text_references.validate_python(source) for source in sources.get("evaluation", ())),
        tasks=tuple(TaskReference.model_validate(task) for task in sources.get("tasks", ())),
        recovery=tuple(text_references.validate_python(source) for source in trained_on),
        teacher=None if teacher is None else model_references.validate_python(teacher),
        images=_claimed_images(sources.get("images")),
        baseline=None if sources.get("baseline") is None else Baseline.model_validate(sources["baseline"]),
        previous_attempts=tuple(range(row.attempt - 1, 0, -1)),
        request_id=row.request_id,
        traceparent=row.traceparent,
        estimate=row.estimate,
    )


def _claimed_images(sources: Mapping[str, Any] | None) -> ClaimedImages | None:
    if sources is None:
        return None
    calibration, recovery = (
        None if sources[name] is None else image_references.validate_python(sources[name])
        for name in ("calibration", "recovery")
    )
    evaluation = tuple(image_references.validate_python(source) for source in sources["evaluation"])
    return ClaimedImages(calibration, recovery, evaluation)


def renew(
    session: Session, job_id: str, attempt: int, lease_seconds: float
) -> Literal["running", "cancelling", "lost"]:
    """Keep a job for another `lease_seconds`; says whether it should go on, stop, or is no longer this attempt's."""
    status = session.scalar(
        update(JobRow)
        .where(JobRow.id == job_id, JobRow.attempt == attempt, JobRow.status.in_(HELD))
        .values(lease_expires_at=seconds_from_now(lease_seconds))
        .returning(JobRow.status)
        .execution_options(synchronize_session=False)
    )
    if status == "running":
        return "running"
    return "cancelling" if status == "cancelling" else "lost"


def release(
    session: Session, job_id: str, attempt: int, *, stages: Mapping[str, float] | None = None
) -> JobStatus | None:
    """Give a job back unharmed (a worker that drains): it is queued again and the attempt does not count.

    A job being cancelled ends as cancelled instead. None where the attempt is stale.
    """
    written = move(
        session,
        job_id,
        ("running",),
        "queued",
        attempt=attempt,
        data={"reason": "released"},
        values={
            "attempts_allowed": JobRow.attempts_allowed + 1,
            "available_at": func.clock_timestamp(),
            "dispatched_at": None,
        },
        ending=Ending("released", stages=stages),
    )
    return finish_cancelled(session, job_id, attempt, stages=stages) if written is None else "queued"
