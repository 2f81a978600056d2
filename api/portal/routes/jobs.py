"""The team's jobs: a list that follows them, and what can be done with one."""

from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, BackgroundTasks, Query, Request
from starlette.responses import RedirectResponse, Response

from api.dependencies import After, DatabaseSession, State
from api.hinting import hint_after_commit
from api.portal.page import is_partial, page
from api.portal.session import Member, Viewer
from core.catalogue.methods import METHODS
from core.jobs import service
from core.jobs.states import STATUSES, JobStatus

router = APIRouter(prefix="/jobs")

_PAGE = 25


@router.get("")
def list_jobs(
    request: Request,
    caller: Viewer,
    session: DatabaseSession,
    after: After = None,
    status: Annotated[JobStatus | None, Query()] = None,
    method: Annotated[str | None, Query(max_length=100)] = None,
    model: Annotated[str | None, Query(max_length=300)] = None,
) -> Response:
    """A page of them, newest first; htmx asks for the rows alone."""
    jobs = service.list_jobs(
        session, caller.team_id, limit=_PAGE, after=after, status=status, method=method, model=model
    )
    filters = {name: value for name, value in (("status", status), ("method", method), ("model", model)) if value}

    def address(**more: str | None) -> str:
        query = urlencode({name: value for name, value in (filters | more).items() if value})
        return f"/portal/jobs?{query}" if query else "/portal/jobs"

    context = {
        "jobs": jobs,
        "filters": {"status": status, "method": method, "model": model},
        "filtered": bool(filters),
        "state_options": [("", "any"), *((each, each) for each in STATUSES)],
        "method_options": [("", "any"), *((each, METHODS[each].title) for each in METHODS)],
        "after": after,
        "here": address(after=after),
        "first": address(),
        "next": address(after=jobs.next_after),
    }
    return page(request, "jobs/rows.html" if is_partial(request) else "jobs/list.html", context)


@router.post("/{job_id}/cancel")
def cancel_job(job_id: str, caller: Member, session: DatabaseSession) -> Response:
    service.cancel(session, caller, job_id)
    return RedirectResponse(f"/portal/jobs/{job_id}", 303)


@router.post("/{job_id}/retry")
def retry_job(
    job_id: str, caller: Member, session: DatabaseSession, state: State, background: BackgroundTasks
) -> Response:
    job = service.retry(session, caller, job_id, max_attempts=state.settings.max_attempts)
    if job.status == "queued":
        hint_after_commit(background, state, job)
    return RedirectResponse(f"/portal/jobs/{job_id}", 303)
