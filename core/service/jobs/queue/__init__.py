"""Queue of record: jobs are claimed, renewed, changed and ended here, and nowhere else does a status change.

Every function takes a session inside a transaction and leaves the commit to its owner. Writes of a worker carry the
job's attempt; where that is no longer the job's, they match no row and say so (False or None). Times are the
database's.

- `transitions`: the one statement that changes a job and takes the next event number
- `claimed`: a job in a worker's hands
- `claims`: claim (JobsLocked where others lock what could be claimed), renew, release; under which conditions a
  worker may take a job
- `outgrown`: jobs that ran out of memory and go on where there is more
- `progress`: stage, progress, events while running
- `completion`: succeeded, failed, cancelled, refused while they wait, and leases that ran out
- `requests`: what users ask for: submitted, cancel, retry
- `attempts`: the record of each attempt, and the audit trail of what workers and the dispatcher do
- `webhook_notices`: events that webhooks are notified of
- `maintenance`: what the dispatcher keeps up: hints that are due, events that are past their time
- `workers`: signs of life, and what a worker does

Locks are taken in one order, so no two transactions wait for each other: first the queue's turn (claims only, an
advisory lock), then jobs (whoever takes several skips those that are locked), then webhooks (only held against
deletion), last the team's row, and only one of them. A claim and `expire_leases` wait for neither jobs nor teams: they
pass over those that are locked. Both take webhooks after the team: whoever deletes one never waits for a team's counts.
"""

from core.service.jobs.idempotency import expire_idempotency_keys
from core.service.jobs.queue.claimed import Claim
from core.service.jobs.queue.claims import JobsLocked, claim, release, renew
from core.service.jobs.queue.completion import (
    LEASES,
    expire_leases,
    finish_cancelled,
    finish_failed,
    finish_succeeded,
    lost_leases,
)
from core.service.jobs.queue.maintenance import (
    HINTS_PER_QUEUE,
    hint_failed,
    hints_due,
    mark_dispatched,
    remove_old_events,
)
from core.service.jobs.queue.progress import append_event, set_progress, set_stage
from core.service.jobs.queue.requests import request_cancel, request_retry, submitted
from core.service.jobs.queue.transitions import EVENT_CHANNEL, status_of
from core.service.jobs.queue.workers import (
    WORKER_STATES,
    WorkerFacts,
    forget_workers,
    fresh_workers,
    heartbeat,
    job_of_worker,
    remove_worker,
    served_queues,
    set_worker_state,
    workers_of,
)
from secateur_wire.fleet import WorkerState

__all__ = [
    "EVENT_CHANNEL",
    "HINTS_PER_QUEUE",
    "LEASES",
    "WORKER_STATES",
    "Claim",
    "JobsLocked",
    "WorkerFacts",
    "WorkerState",
    "append_event",
    "claim",
    "expire_idempotency_keys",
    "expire_leases",
    "finish_cancelled",
    "finish_failed",
    "finish_succeeded",
    "forget_workers",
    "fresh_workers",
    "heartbeat",
    "hint_failed",
    "hints_due",
    "job_of_worker",
    "lost_leases",
    "mark_dispatched",
    "release",
    "remove_old_events",
    "remove_worker",
    "renew",
    "request_cancel",
    "request_retry",
    "served_queues",
    "set_progress",
    "set_stage",
    "set_worker_state",
    "status_of",
    "submitted",
    "workers_of",
]
