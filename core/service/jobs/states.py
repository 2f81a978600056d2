"""States of a job and the transitions between them."""

from typing import get_args

from secateur_wire.states import JobStatus, Stage

STATUSES: tuple[JobStatus, ...] = get_args(JobStatus)
STAGES: tuple[Stage, ...] = get_args(Stage)

TRANSITIONS: dict[JobStatus, tuple[JobStatus, ...]] = {
    "queued": ("running", "cancelled", "failed"),
    "running": ("succeeded", "failed", "cancelled", "cancelling", "queued"),
    "cancelling": ("cancelled",),
    "succeeded": (),
    "failed": ("queued",),
    "cancelled": ("queued",),
}
"""States that may follow each state.

`queued → failed` is a job whose model is not one it can run on, which was found out while it waited; `running → queued`
is a lost lease, a retryable end or a drained worker; `failed | cancelled → queued` is a retry that a user requested.
"""

LEASED: tuple[JobStatus, ...] = ("running", "cancelling")
"""States in which a worker holds the job: it has a lease, and is counted on its team's row."""

TERMINAL: tuple[JobStatus, ...] = ("succeeded", "failed", "cancelled")
NOT_OVER: tuple[JobStatus, ...] = tuple(status for status in STATUSES if status not in TERMINAL)
