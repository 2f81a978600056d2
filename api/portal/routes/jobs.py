"""List of the team's jobs, which refreshes itself, and the actions on a job."""

from collections import Counter
from dataclasses import replace
from typing import Annotated, Final, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, BackgroundTasks, Query, Request
from starlette.responses import RedirectResponse, Response

from api.dependencies import After, DatabaseSession, Search, State
from api.events.after_commit import hint_after_commit
from api.portal.rendering import is_partial, page
from api.portal.routes.sign_in import own_path
from api.portal.session import Member, Posted, Viewer
from core.methods.registry import METHODS
from core.service.jobs import service
from core.service.jobs.listing import JobFilters
from core.service.jobs.states import STATUSES
from core.service.jobs.waiting import with_waiting_reasons
from core.service.publications.retry import retry
from core.service.registry.service import list_models
from core.service.samples.requests import latest_request
from secateur_wire.jobs import JobSort
from secateur_wire.states import JobStatus

router = APIRouter(prefix="/jobs")

_PAGE = 25
_SORTS: Final[dict[JobSort, str]] = {
    "newest": "Newest first",
    "oldest": "Oldest first",
    "model": "Model, A to Z",
    "method": "Method, A to Z",
    "status": "State, waiting first",
    "finished": "Last ended first",
}
_DIRECTIONS: Final[dict[JobSort, tuple[str, str]]] = {"newest": ("Newer", "Older"), "oldest": ("Older", "Newer")}
"""Names of the links to the pages before and after; in other sort orders they are Previous and Next."""


@router.get("")
def list_jobs(
    request: Request,
    caller: Viewer,
    session: DatabaseSession,
    state: State,
    after: After = None,
    before: After = None,
    status: JobStatus | Literal[""] = "",
    method: Annotated[str, Query(max_length=100)] = "",
    model: Annotated[str, Query(max_length=300)] = "",
    search: Search = None,
    sort: JobSort = "newest",
) -> Response:
    """Show a page of the jobs; htmx polls for changes. Empty filters are ignored."""
    filters: JobFilters = {
        "status": status or None,
        "method": method or None,
        "model": model or None,
        "search": search,
    }
    jobs = service.jobs_window(session, caller.team_id, limit=_PAGE, after=after, before=before, sort=sort, **filters)
    jobs = replace(jobs, data=with_waiting_reasons(session, jobs.data, state.settings))
    wanted = {**filters, "sort": sort}
    kept = {name: value for name, value in wanted.items() if value and value != "newest"}

    def address(**more: str | None) -> str:
        query = urlencode({name: value for name, value in (kept | more).items() if value})
        return f"/portal/jobs?{query}" if query else "/portal/jobs"

    methods = {"": "any"} | {each: METHODS[each].title for each in METHODS}
    states = Counter(job.status for job in jobs.data)
    sampling = latest_request(session, caller.team_id)
    context = {
        "jobs": jobs,
        "counted": [(state, states[state]) for state in STATUSES if state in states],
        "wanted": wanted,
        "filtered": any(filters.values()),
        "paged": bool(after or before),
        "may_change": caller.may("member"),
        "has_models": not jobs.data and bool(list_models(session, caller.team_id, limit=1, after=None).data),
        "sampling": sampling if sampling is not None and sampling.finished_at is None else None,
        "state_options": [("", "any"), *((each, each) for each in STATUSES)],
        "method_options": list(({method: f"{method} (unknown)"} | methods).items()),
        "sort_options": list(_SORTS.items()),
        "sort_text": _SORTS[sort],
        "here": address(after=after, before=None if after else before),
        "first": address(),
        "newer": jobs.before and address(before=jobs.before),
        "older": jobs.after and address(after=jobs.after),
        "words": _DIRECTIONS.get(sort, ("Previous", "Next")),
    }
    return page(request, "jobs/listed.html" if is_partial(request) else "jobs/list.html", context)


@router.post("/{job_id}/cancel")
def cancel_job(job_id: str, caller: Member, session: DatabaseSession, posted: Posted) -> Response:
    """Cancel a job, and redirect to it, or to `then`, the page with the button."""
    service.cancel(session, caller, job_id)
    return RedirectResponse(own_path(posted.get("then", f"/portal/jobs/{job_id}")), 303)


@router.post("/{job_id}/retry")
def retry_job(
    job_id: str, caller: Member, session: DatabaseSession, state: State, background: BackgroundTasks, posted: Posted
) -> Response:
    """Retry a job, and redirect as after cancelling."""
    job = retry(session, caller, job_id, max_attempts=state.settings.max_attempts)
    if job.status == "queued":
        hint_after_commit(background, state, job)
    return RedirectResponse(own_path(posted.get("then", f"/portal/jobs/{job_id}")), 303)
