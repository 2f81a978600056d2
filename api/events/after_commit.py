"""Hints to workers about a job, sent after the commit."""

from fastapi import BackgroundTasks

from api.state import ApiState
from core.service.jobs.hints import hint_or_note
from core.service.jobs.schemas import Job


def hint_after_commit(background: BackgroundTasks, state: ApiState, job: Job) -> None:
    """Send the hint after the answer, and so after the commit; a broker that is down delays no request."""
    background.add_task(hint_or_note, state.send_hint, state.sessions, job.id, job.queue)
