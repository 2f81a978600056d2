"""Page of the fleet for admins: the running workers, their jobs, and the queues."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.dependencies import DatabaseSession, State
from api.portal.rendering import is_partial, page
from api.portal.session import Admin
from api.routes.fleet import workers_shown_to
from core.service.jobs import fleet

router = APIRouter(prefix="/workers")


@router.get("")
def list_workers(request: Request, caller: Admin, session: DatabaseSession, state: State) -> Response:
    """Show the page of workers; htmx requests only its figures."""
    fresh_seconds = state.settings.worker_fresh_seconds
    context = {
        "workers": workers_shown_to(session, caller.team_id, fresh_seconds),
        "queues": fleet.queue_figures(session),
        "fresh_seconds": fresh_seconds,
    }
    return page(request, "workers/figures.html" if is_partial(request) else "workers/page.html", context)
