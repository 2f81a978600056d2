"""The queue of record: jobs are claimed, kept, written to and ended here, and nowhere else does a status change.

Every function takes a session inside a transaction and leaves the commit to its owner. Writes of a worker carry the
job's attempt; where that is no longer the job's, they match no row and say so (False or None). Times are the
database's.

- `writes`: the one statement that changes a job and takes the next event number
- `claims`: claim, renew, release
- `records`: stage, progress, events while running
- `ends`: succeeded, failed, cancelled, and leases that ran out
- `requests`: what users ask for: submitted, cancel, retry
- `upkeep`: what the dispatcher and workers tell: hints due, heartbeats

Locks are always taken job first, then team; claim takes teams (in order of id), then skips jobs that are locked. So no
two of these wait for each other.
"""

from core.jobs.idempotency import expire_idempotency_keys
from core.jobs.queue.claims import Claim, ModelReference, TextReference, claim, release, renew
from core.jobs.queue.ends import expire_leases, finish_cancelled, finish_failed, finish_succeeded
from core.jobs.queue.records import append_event, set_progress, set_stage
from core.jobs.queue.requests import request_cancel, request_retry, submitted
from core.jobs.queue.upkeep import (
    fresh_workers,
    heartbeat,
    hint_failed,
    hints_due,
    mark_dispatched,
    remove_worker,
)
from core.jobs.queue.writes import EVENT_CHANNEL, status_of

__all__ = [
    "EVENT_CHANNEL",
    "Claim",
    "ModelReference",
    "TextReference",
    "append_event",
    "claim",
    "expire_idempotency_keys",
    "expire_leases",
    "finish_cancelled",
    "finish_failed",
    "finish_succeeded",
    "fresh_workers",
    "heartbeat",
    "hint_failed",
    "hints_due",
    "mark_dispatched",
    "release",
    "remove_worker",
    "renew",
    "request_cancel",
    "request_retry",
    "set_progress",
    "set_stage",
    "status_of",
    "submitted",
]
