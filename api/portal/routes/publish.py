"""Publications of a job: requested, followed, cancelled."""

from typing import Any, Final

from fastapi import APIRouter, Request
from pydantic import ValidationError
from sqlalchemy.orm import Session
from starlette.responses import RedirectResponse, Response

from api.dependencies import DatabaseSession, State
from api.portal.forms.errors import errors_by_field, status_of
from api.portal.rendering import is_partial, page
from api.portal.session import CSRF_FIELD, SECRET_FIELDS, Form, Member, Posted, Viewer, Visit
from core.database import transaction
from core.service.jobs import service as jobs
from core.service.publications import service
from core.service.publications.schemas import PublicationBody
from secateur_wire.errors import ApiError, Conflict

router = APIRouter()

_PAGE = 25
_HUB, _BUCKET = "hub", "bucket"
_TO: Final = {_HUB: ("repository", "hub:"), _BUCKET: ("bucket", "s3://")}
"""Field of each form for the destination, and the prefix of its value in a request."""


@router.get("/jobs/{job_id}/publish")
def show_publications(request: Request, job_id: str, caller: Viewer, session: DatabaseSession) -> Response:
    """Show the forms and the publications; only the publications when the page polls."""
    if is_partial(request):
        return page(request, "publish/listed.html", _listed(session, caller.team_id, job_id))
    return _publish_page(Visit(request, session, caller), job_id)


@router.post("/jobs/{job_id}/publish")
def publish(request: Request, job_id: str, caller: Member, state: State, posted: Posted) -> Response:
    try:
        body = _body(posted)
        with transaction(state.sessions) as session:
            service.publish(session, caller, job_id, body, settings=state.settings, secret=state.secret)
    except (Conflict, ApiError, ValidationError) as error:
        if isinstance(error, ApiError) and error.status in (403, 404):
            raise
        with transaction(state.sessions) as session:
            return _publish_page(Visit(request, session, caller), job_id, posted=posted, error=error)
    return RedirectResponse(f"/portal/jobs/{job_id}/publish#published", 303)


@router.post("/publications/{publication_id}/cancel")
def cancel(publication_id: str, caller: Member, session: DatabaseSession) -> Response:
    job_id = service.get_publication(session, caller.team_id, publication_id).job_id
    service.cancel_publication(session, caller, publication_id)
    return RedirectResponse(f"/portal/jobs/{job_id}/publish#published", 303)


def _body(posted: Form) -> PublicationBody:
    """Return the body of the form. Raises ValidationError."""
    fields: dict[str, Any] = dict(posted.without((CSRF_FIELD, "kind", "visibility", *_fields_of_where())).fields)
    where, before = _TO.get(posted.get("kind"), _TO[_HUB])
    fields["to"] = before + posted.get(where)
    if posted.get("kind") != _BUCKET:
        fields["private"] = posted.get("visibility") != "public"
    return PublicationBody.model_validate(fields)


def _fields_of_where() -> tuple[str, ...]:
    return tuple(field for field, _ in _TO.values())


def _listed(session: Session, team_id: str, job_id: str) -> dict[str, Any]:
    publications = service.list_publications(session, team_id, job_id, limit=_PAGE, after=None).data
    return {
        "job_id": job_id,
        "publications": publications,
        "is_open": any(each.finished_at is None for each in publications),
    }


def _publish_page(
    visit: Visit,
    job_id: str,
    *,
    posted: Form | None = None,
    error: ApiError | ValidationError | None = None,
) -> Response:
    """Render the page with the typed values, except credentials: those must be typed again."""
    session, team_id = visit.session, visit.caller.team_id
    kind = "" if posted is None else posted.get("kind")
    errors = {} if error is None else errors_by_field(error, PublicationBody.model_fields)
    if "to" in errors:
        errors[_TO.get(kind, _TO[_HUB])[0]] = errors.pop("to").removeprefix("to: ")
    job = jobs.get_job(session, team_id, job_id)
    context = {
        **_listed(session, team_id, job_id),
        "job": job,
        "missed_gate": job.status != "succeeded",
        "has_artifact": bool(jobs.list_artifacts(session, team_id, job_id).data),
        "values": {} if posted is None else posted.without(SECRET_FIELDS).fields,
        "errors": errors,
    }
    return page(visit.request, "publish/page.html", context, status=200 if error is None else status_of(error))
