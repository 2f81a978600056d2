"""Refusal of a job while it waits: what it asks for turned out to be nothing that could run."""

from sqlalchemy.orm import Session

from core.service.jobs.queue.audit_entries import ACTIONS
from core.service.jobs.queue.transitions import Transition, transition
from core.service.teams import audit
from core.service.teams.principal import Automation
from secateur_wire.problems import StoredProblem


def refuse(session: Session, job_id: str, problem: StoredProblem) -> bool:
    """End a job that waits with a problem, as the dispatcher; False where it no longer waits."""
    error = dict(problem)
    written = transition(
        session, job_id, Transition(("queued",), "failed", data={"error": error}, values={"error": error})
    )
    if written is None:
        return False
    details = {"status": "failed", "error": problem["code"]}
    audit.note(session, Automation(written.team_id, "dispatcher"), ACTIONS["failed"], job_id, details)
    return True
