"""Queue of record: jobs are claimed, renewed, changed and ended here, and nowhere else does a status change.

Every function takes a session inside a transaction and leaves the commit to its owner. Writes of a worker carry the
number of the attempt. If the job has another attempt by then, they match no row and return False or None. Times are the
database's.

- `transitions`: the one statement that changes a job and takes the next event number
- `claimed`: a job that a worker holds
- `claims`: claim (JobsLocked where other transactions lock the candidates), renew and release; the conditions under
  which a worker may take a job
- `outgrown`: jobs that ran out of memory and are queued for a larger worker
- `progress`: stage, progress and events of a running job
- `completion`: success, failure, cancellation, refusal of waiting jobs, and expired leases
- `requests`: requests of users: submit, cancel, retry
- `attempts`: the record of each attempt, and the audit trail of workers and the dispatcher
- `webhook_notices`: events for webhooks
- `maintenance`: work of the dispatcher: due hints, and expired events
- `workers`: heartbeats, and the state of each worker

Locks are taken in one order, so that no two transactions deadlock. First comes the queue's turn (claims only, an
advisory lock). Then come jobs; a transaction that takes several skips locked ones. Then come webhooks, which are only
protected from deletion. Last comes one team's row. A claim and `expire_leases` wait for neither jobs nor teams: they
skip locked ones. Both take webhooks after the team. This is safe because the deletion of a webhook never waits for a
team's counts.
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
