"""Conditions, in SQL, under which a worker may take a job: it has room for it, or tries it as the largest.

They stand in the claim's statement, where `{worker}` and `{me}` are rows with the memory and disk of a worker.
"""

from core.service.jobs.admission import STEPS_PER_DOUBLING

_MEMORY = "coalesce({worker}.device_memory_bytes, 0), coalesce({worker}.memory_bytes, 0)"
FRESH = """
    heartbeat_at > statement_timestamp() - make_interval(secs => :fresh_seconds) AND state NOT IN ('paused', 'draining')
"""
"""Condition of workers that are expected to take jobs."""

_HAS_NOT_OUTGROWN = f"""
    coalesce(({_MEMORY}) > (jobs.outgrown_device_memory_bytes, jobs.outgrown_memory_bytes), true)
"""
"""Condition that the job never ran out of memory on a worker with as much."""

HAS_ROOM = f"""
    coalesce(jobs.needs_device_memory_bytes <= {{worker}}.device_memory_bytes, true)
    AND coalesce(jobs.needs_memory_bytes <= {{worker}}.memory_bytes, true)
    AND coalesce(jobs.needs_disk_bytes <= {{worker}}.disk_free_bytes, true)
    AND {_HAS_NOT_OUTGROWN}
"""
"""Condition that a worker has room. A size that is not known, of the job or of the worker, excludes neither."""

MAY_TAKE = f"""
    (
        {HAS_ROOM.format(worker="{me}")}
        OR (
            {{me}}.is_largest
            AND jobs.available_at < clock_timestamp() - make_interval(secs => :max_wait_seconds)
            AND {_HAS_NOT_OUTGROWN.format(worker="{me}")}
            AND NOT EXISTS (
                SELECT FROM workers AS other
                WHERE other.queue = :queue AND {FRESH} AND {HAS_ROOM.format(worker="other")}
            )
        )
    )
"""
"""Condition that a worker may take a job: the largest tries what no other has room for, once it has waited long."""

_STEP = f"coalesce(floor({STEPS_PER_DOUBLING} * log(2, {{figure}} + 1))::int, 255)"

ME = f"""
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
                    WHERE other.queue = :queue AND {FRESH}
                        AND ({_MEMORY.format(worker="other")}) > ({_MEMORY.format(worker="worker")})
                ) AS is_largest
            FROM (SELECT) AS one LEFT JOIN workers AS worker ON worker.id = :worker
        ) AS facts
    )
"""
"""The worker that claims, one row always; a worker that told nothing of itself is one with room for everything."""

MAY_FIT = """
    (
        me.is_largest
        OR (
            waiting.size / 65536 <= me.device_memory_step + 1
            AND waiting.size / 256 % 256 <= me.memory_step + 1
            AND waiting.size % 256 <= me.disk_step + 1
        )
    )
"""
"""Some job of this size (`core.service.jobs.admission.Room.size`) may be one for the worker. One step is left
open, for what rounding does here and there; each job is then looked at by its bytes."""
