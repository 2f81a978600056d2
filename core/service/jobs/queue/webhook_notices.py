"""Webhook events of a job: one for each new state, written in the transaction that sets the state."""

from typing import get_args

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.service.jobs.tables import JobRow
from core.service.webhooks.events import WebhookEvent, listeners, write_event
from secateur_wire.states import JobStatus
from secateur_wire.webhooks import WebhookType

_TYPES: dict[str, WebhookType] = {
    status: type for type in get_args(WebhookType) for status in get_args(JobStatus) if type == f"job.{status}"
}


def notify_webhooks(session: Session, job_id: str, team_id: str, status: JobStatus) -> None:
    """Write the webhook event of a job that changed to `status`.

    The caller has locked and flushed the job's row. The team's row is either not locked yet, or was locked together
    with it.
    """
    endpoints = listeners(session, team_id, _TYPES[status])
    if not endpoints:
        return
    job = session.execute(
        select(
            JobRow.stage,
            JobRow.attempt,
            JobRow.model,
            JobRow.method,
            JobRow.body["sparsity"].label("sparsity"),
            JobRow.labels,
            JobRow.error,
            JobRow.metrics,
            JobRow.last_event,
        ).where(JobRow.id == job_id)
    ).one()
    data = {
        "id": job_id,
        "object": "job",
        "status": status,
        "stage": job.stage,
        "attempt": job.attempt,
        "model": job.model,
        "method": job.method,
        "sparsity": job.sparsity,
        "metadata": job.labels,
        "error": job.error,
        "metrics": job.metrics,
        "sequence": job.last_event,
    }
    write_event(session, endpoints, WebhookEvent(team_id, _TYPES[status], data, subject=job_id))
