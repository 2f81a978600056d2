"""Claims: a worker takes a job, renews its lease, and gives the job back.

A worker may take a job for which it has room. The largest worker may also try a job for which no worker has room. These
conditions are part of the claim's statement, where `{worker}` and `{me}` are rows with a worker's memory and disk.
"""

import zlib
from collections.abc import Mapping
from typing import Any, Literal

from sqlalchemy import Row, bindparam, func, text, update
from sqlalchemy.orm import Session

from core.database import new_id, seconds_from_now
from core.service.jobs.admission import STEPS_PER_DOUBLING, Room
from core.service.jobs.queue.attempts import Ending
from core.service.jobs.queue.claimed import Claim, claim_of
from core.service.jobs.queue.completion import finish_cancelled
from core.service.jobs.queue.progress import append_event
from core.service.jobs.queue.transitions import EVENT_CHANNEL, Transition, transition
from core.service.jobs.queue.webhook_notices import notify_webhooks
from core.service.jobs.states import LEASED
from core.service.jobs.tables import JobRow, WorkerRow
from secateur_wire.states import JobStatus

_MEMORY = "coalesce({worker}.device_memory_bytes, 0), coalesce({worker}.memory_bytes, 0)"
_FRESH = """
    heartbeat_at > statement_timestamp() - make_interval(secs => :fresh_seconds) AND state NOT IN ('paused', 'draining')
"""
"""Condition of workers that are expected to take jobs."""

_HAS_NOT_OUTGROWN = f"""
    coalesce(({_MEMORY}) > (jobs.outgrown_device_memory_bytes, jobs.outgrown_memory_bytes), true)
"""
"""Condition that the job never ran out of memory on a worker with as much memory."""

_HAS_ROOM = f"""
    coalesce(jobs.needs_device_memory_bytes <= {{worker}}.device_memory_bytes, true)
    AND coalesce(jobs.needs_memory_bytes <= {{worker}}.memory_bytes, true)
    AND coalesce(jobs.needs_disk_bytes <= {{worker}}.disk_free_bytes, true)
    AND {_HAS_NOT_OUTGROWN}
"""
"""Condition that a worker has room. An unknown size, of the job or of the worker, excludes no worker."""

_MAY_TAKE = f"""
    (
        {_HAS_ROOM.format(worker="{me}")}
        OR (
            {{me}}.is_largest
            AND jobs.available_at < clock_timestamp() - make_interval(secs => :max_wait_seconds)
            AND {_HAS_NOT_OUTGROWN.format(worker="{me}")}
            AND NOT EXISTS (
                SELECT FROM workers AS other
                WHERE other.queue = :queue AND {_FRESH} AND {_HAS_ROOM.format(worker="other")}
            )
        )
    )
"""
"""Condition that a worker may take a job. After a long wait the largest worker tries a job for which none has room."""

_STEP = f"coalesce(floor({STEPS_PER_DOUBLING} * log(2, {{figure}} + 1))::int, 255)"

_ME = f"""
    me AS MATERIALIZED (
        SELECT
            *,
            {_STEP.format(figure="device_memory_bytes")} AS device_memory_step,
            {_STEP.format(figure="memory_bytes")} AS memory_step,
            {_STEP.format(figure="disk_free_bytes")} AS disk_step
        FROM (
            SELECT
                worker.device_memory_bytes, worker.memory_bytes,
                coalesce(CAST(:disk_free_bytes AS bigint), worker.disk_free_bytes) AS disk_free_bytes,
                NOT EXISTS (
                    SELECT FROM workers AS other
                    WHERE other.queue = :queue AND {_FRESH}
                        AND ({_MEMORY.format(worker="other")}) > ({_MEMORY.format(worker="worker")})
                ) AS is_largest
            FROM (SELECT) AS one LEFT JOIN workers AS worker ON worker.id = :worker
        ) AS facts
    )
"""
"""The claiming worker, always one row; a worker without a reported size has room for every job."""

_MAY_FIT = """
    (
        me.is_largest
        OR (
            waiting.size / 65536 <= me.device_memory_step + 1
            AND waiting.size / 256 % 256 <= me.memory_step + 1
            AND waiting.size % 256 <= me.disk_step + 1
        )
    )
"""
"""Condition that a job of this size (`core.service.jobs.admission.Room.size`) may fit the worker. It allows one more
step, because sizes are rounded. Each job is then checked by its bytes."""

_STARTED = "job.start"
"""Audit action of a worker that claims a job."""

_CLAIM_LOCKS = 0x5ECA << 32
"""Base of the advisory locks of queues; a hash of the queue's name is added to it."""


_TAKE_TURNS = text("""
    SELECT
        set_config('idle_in_transaction_session_timeout', :longest_turn, true),
        pg_advisory_xact_lock(:turn)
    FROM (
        SELECT FROM jobs WHERE status = 'queued' AND queue = :queue ORDER BY priority DESC, created_at, id LIMIT 1
    ) AS waiting
""")
"""Takes no lock and returns no row where the queue is empty. The order is that of the index: without it PostgreSQL may
search for a waiting row among the many rows that do not wait."""

_LONGEST_TURN = "5s"
"""Time limit of a turn. A worker that freezes or is cut off loses it: the server ends its session, and others go on."""

_WAITS = f"""
    team_id = {{team}} AND queue = :queue AND size = {{size}} AND status = 'queued'
    AND available_at <= clock_timestamp() AND awaits_discovery IS NULL AND {_MAY_TAKE}
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
    SELECT
        teams.id AS team_id, waiting.size, running / weight AS share, best.priority, best.created_at, best.id,
        me.device_memory_bytes, me.memory_bytes, me.disk_free_bytes, me.is_largest
    FROM me
    CROSS JOIN waiting
    JOIN teams ON teams.id = waiting.team_id
    CROSS JOIN LATERAL (
        SELECT priority, created_at, id FROM jobs
        WHERE {_MAY_FIT} AND {_WAITS.format(team="teams.id", size="waiting.size", me="me")}
    ) AS best
    WHERE waiting.queue = :queue AND {_MAY_RUN}
    ORDER BY priority DESC, share, created_at, id
"""
_WAITING = f"""
    WITH RECURSIVE waiting (team_id, queue, size) AS (
        (SELECT team_id, queue, size FROM jobs WHERE status = 'queued' ORDER BY team_id, queue, size LIMIT 1)
        UNION ALL
        SELECT next.team_id, next.queue, next.size
        FROM waiting CROSS JOIN LATERAL (
            SELECT jobs.team_id, jobs.queue, jobs.size FROM jobs
            WHERE jobs.status = 'queued'
                AND (jobs.team_id, jobs.queue, jobs.size) > (waiting.team_id, waiting.queue, waiting.size)
            ORDER BY jobs.team_id, jobs.queue, jobs.size
            LIMIT 1
        ) AS next
    ),
    {_ME}
"""
_CLAIM = text(f"""
    {_WAITING},
    picked AS MATERIALIZED (
        SELECT job.id, team.id AS team_id, job.has_room
        FROM ({_CANDIDATES}) AS candidate
        CROSS JOIN LATERAL (
            SELECT id FROM teams WHERE id = candidate.team_id AND {_MAY_RUN} FOR NO KEY UPDATE SKIP LOCKED
        ) AS team
        CROSS JOIN LATERAL (
            SELECT id, {_HAS_ROOM.format(worker="candidate")} AS has_room
            FROM jobs
            WHERE {_WAITS.format(team="team.id", size="candidate.size", me="candidate")}
            FOR NO KEY UPDATE SKIP LOCKED
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
        EXISTS (SELECT FROM webhooks WHERE webhooks.team_id = taken.team_id AND webhooks.enabled) AS has_webhooks,
        picked.has_room
    FROM taken JOIN picked ON picked.id = taken.id
""").bindparams(bindparam("channel", EVENT_CHANNEL), bindparam("action", _STARTED))
"""Returns at most one row and waits for no lock: it skips a team whose row another transaction has locked.

`waiting` steps through the index from each team, queue and size of jobs to the next. A condition inside `best` skips
sizes that are too large for the worker before any of their rows is read. The best row of each remaining size is the
first of its part of the index. Only one row is locked, after its team's: `candidate` is sorted, so the rows of its
joins are sorted too, and the first one is enough.
"""

_JOBS_ARE_LOCKED = text(f"{_WAITING} SELECT EXISTS ({_CANDIDATES})")


class JobsLocked(Exception):
    """Jobs may run, but other transactions lock their rows or their teams' rows now: try again in a moment."""


def claim(
    session: Session,
    *,
    queue: str,
    worker_id: str,
    lease_seconds: float,
    disk_free_bytes: int | None = None,
    fresh_seconds: float = 60,
    max_wait_seconds: float = 600,
) -> Claim | None:
    """Claim the best eligible job of a queue; None where nothing is eligible.

    Jobs are ordered by priority, then by the team with the fewest running jobs for its weight, then by age.

    Raises JobsLocked where other transactions lock all eligible jobs.

    A job is eligible if the worker has room for it by its last heartbeat (`disk_free_bytes` is the space on its disk
    now). If no worker of the queue has room (among those with a heartbeat in `fresh_seconds` that take jobs), a worker
    with the most memory tries the job once it has waited `max_wait_seconds`. The job's log then says so.

    The claims of one queue take turns, from here to the commit. So the second of two workers counts the first one's
    job: fair shares are exact within a queue. Quotas are exact everywhere, because they are checked again on the team's
    locked row. A transaction that locks a team's row delays only the jobs of that team. A claim is one statement, plus
    those for the team's webhooks; its cost does not grow with the number of waiting rows.
    """
    turn = {"turn": _CLAIM_LOCKS | zlib.crc32(queue.encode()), "longest_turn": _LONGEST_TURN}
    if session.execute(_TAKE_TURNS, {"queue": queue, **turn}).one_or_none() is None:
        return None
    parameters = {
        "queue": queue,
        "worker": worker_id,
        "disk_free_bytes": disk_free_bytes,
        "fresh_seconds": fresh_seconds,
        "max_wait_seconds": max_wait_seconds,
    }
    values = {"lease_seconds": lease_seconds, "audit_id": new_id("audit")}
    row = session.execute(_CLAIM, parameters | values).one_or_none()
    if row is None:
        if session.scalar(_JOBS_ARE_LOCKED, parameters):
            raise JobsLocked
        return None
    if not row.has_room:
        _log_try(session, row, worker_id, max_wait_seconds)
    if row.has_webhooks:
        notify_webhooks(session, row.id, row.team_id, "running")
    return claim_of(row)


def _log_try(session: Session, row: Row[Any], worker_id: str, max_wait_seconds: float) -> None:
    needs = Room(row.needs_device_memory_bytes, row.needs_memory_bytes, row.needs_disk_bytes)
    lack = needs.lack(session.get_one(WorkerRow, worker_id))
    message = (
        f"By its estimate no worker of queue {row.queue!r} has room for this job{f' ({lack})' if lack else ''}; "
        f"it waited more than {max_wait_seconds:g} s, so the worker with the most memory tries it."
    )
    append_event(session, row.id, row.attempt, "log", {"level": "warning", "message": message})


def renew(
    session: Session, job_id: str, attempt: int, worker_id: str, lease_seconds: float
) -> Literal["running", "cancelling", "lost"]:
    """Renew the lease of a job by `lease_seconds`; return whether to go on or to stop, or that the attempt is stale.

    The worker is compared too: after a restore, or a failover that lost the last writes, the database may give the same
    attempt number to another worker.
    """
    status = session.scalar(
        update(JobRow)
        .where(
            JobRow.id == job_id,
            JobRow.attempt == attempt,
            JobRow.worker_id == worker_id,
            JobRow.status.in_(LEASED),
        )
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
    """Return a job to the queue, for a worker that drains. This attempt does not count.

    A job that is being cancelled becomes cancelled instead. None where the attempt is stale.
    """
    written = transition(
        session,
        job_id,
        Transition(
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
        ),
    )
    return finish_cancelled(session, job_id, attempt, stages=stages) if written is None else "queued"
