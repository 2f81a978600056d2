"""Samples: a model and texts for users who have none, and a first job with them."""

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from api.dependencies import DatabaseSession, State
from api.portal.rendering import is_partial, page
from api.portal.session import Member, Posted, Viewer
from core.database import transaction
from core.service.samples.requests import get_request, request_samples
from secateur_wire.samples import SampleBody

router = APIRouter(prefix="/samples")


@router.post("")
def ask_for_samples(caller: Member, state: State, posted: Posted) -> Response:
    """Request the samples, and with a goal the pruning of the model; redirect to the page of the request."""
    with transaction(state.sessions) as session:
        body = SampleBody.model_validate({"goal": posted.get("goal") or None})
        wanted, _ = request_samples(session, caller, body)
    return RedirectResponse(f"/portal/samples/{wanted.id}", 303)


@router.get("/{request_id}")
def show_request(request_id: str, request: Request, caller: Viewer, session: DatabaseSession) -> Response:
    """Show the progress of a request; once its job is submitted, redirect to the job."""
    wanted = get_request(session, caller.team_id, request_id)
    if wanted.job_id is not None:
        job = f"/portal/jobs/{wanted.job_id}"
        return Response(headers={"HX-Redirect": job}) if is_partial(request) else RedirectResponse(job, 303)
    return page(request, "samples/progress.html" if is_partial(request) else "samples/page.html", {"wanted": wanted})
