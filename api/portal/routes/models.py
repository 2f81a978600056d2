"""Pages of the team's models: the list, the facts of each, and the methods that fit it."""

from fastapi import APIRouter, Request
from sqlalchemy.orm import Session
from starlette.responses import RedirectResponse, Response

from api.dependencies import After, DatabaseSession, State
from api.portal.rendering import page
from api.portal.routes.adding import uploads_to_show
from api.portal.session import Member, Viewer, Visit
from core.database import transaction
from core.methods.registry import METHODS
from core.service.discoveries.requests import ask_for
from core.service.jobs.inspection import inspect
from core.service.jobs.lineage import lineage_of_model
from core.service.jobs.schemas import InspectBody
from core.service.jobs.service import list_jobs
from core.service.registry import service
from core.service.registry.tables import ModelRow
from core.service.retention.deletion import delete_registered
from core.service.teams.principal import Principal
from core.settings import Settings
from core.storage.removal import remove_prefixes
from secateur_wire.errors import Conflict, InvalidRequest, NotDiscovered, QuotaExceeded, Unavailable, UnusableModel
from secateur_wire.jobs import MethodFit

router = APIRouter(prefix="/models")

_PAGE = 25
_MOST_JOBS = 10
"""Newest jobs of a model that its page shows; the list of jobs has all."""


@router.get("")
def list_models(request: Request, caller: Viewer, session: DatabaseSession, after: After = None) -> Response:
    context = {
        "models": service.list_models(session, caller.team_id, limit=_PAGE, after=after),
        "uploads": uploads_to_show(session, caller, "model"),
        "after": after,
    }
    return page(request, "registry/models.html", context)


@router.get("/{name}")
def show_model(request: Request, name: str, caller: Viewer, session: DatabaseSession) -> Response:
    return _model_page(Visit(request, session, caller), name)


@router.post("/{name}/delete")
def delete_model(request: Request, name: str, caller: Member, state: State) -> Response:
    """Delete a model; if a job needs it, the page shows this at the button."""
    try:
        with transaction(state.sessions) as session:
            prefixes = delete_registered(session, caller, ModelRow, name)
    except Conflict as error:
        with transaction(state.sessions) as session:
            return _model_page(Visit(request, session, caller), name, refused=error)
    remove_prefixes(state.store, prefixes)
    return RedirectResponse("/portal/models", 303)


def _model_page(visit: Visit, name: str, refused: Conflict | None = None) -> Response:
    session, caller, state = visit.session, visit.caller, visit.state
    row = service.get_row(session, ModelRow, caller.team_id, name)
    fits: list[MethodFit] = []
    unknown: str | None = None
    try:
        fits = inspect(state.request(session, caller), InspectBody(model=row.name)).methods
    except NotDiscovered as missing:
        unknown = _have_discovered(session, caller, missing, state.settings)
    except (InvalidRequest, UnusableModel) as error:  # The error of the failed discovery.
        unknown = error.message
    context = {
        "model": service.model_answer(session, row),
        "fits": fits,
        "lineage": lineage_of_model(session, caller.team_id, row),
        "jobs": list_jobs(session, caller.team_id, limit=_MOST_JOBS, after=None, model=row.name),
        "unknown": unknown,
        "methods": METHODS,
        "refused": refused,
    }
    return page(visit.request, "registry/model.html", context, status=200 if refused is None else refused.status)


def _have_discovered(session: Session, caller: Principal, missing: NotDiscovered, settings: Settings) -> str | None:
    """Request the discovery of a model; return the reason why it has to wait, None where it can start."""
    try:
        ask_for(session, caller, missing, settings)
    except (QuotaExceeded, Unavailable) as error:
        return error.message
    return None
