"""Routes of registered models, and of the inspection of a model or job body."""

from functools import partial

from pydantic import BaseModel, ValidationError
from sqlalchemy.orm import Session
from starlette.responses import Response

from api.dependencies import Admin, After, CreateOnce, DatabaseSession, Limit, Member, State, Viewer
from api.http.problem_documents import as_invalid_request, problems
from api.http.routing import Router
from api.routes.discoveries import LATER, answer_later
from api.routes.jobs import BODY_ERRORS
from core.database import transaction
from core.service.discoveries.requests import ask_for
from core.service.jobs.resolution.hub_lookup import HUB_ERRORS
from core.service.jobs.schemas import InspectBody, Inspection
from core.service.plans.assumptions import inspect_assuming
from core.service.registry import service
from core.service.registry.schemas import ModelBody
from core.service.registry.tables import ModelRow
from core.service.retention.deletion import delete_registered
from core.storage.removal import remove_prefixes
from secateur_wire.base import Page
from secateur_wire.errors import (
    Conflict,
    CorruptSafetensors,
    DiscoveryFailed,
    Forbidden,
    IdempotencyConflict,
    InvalidRequest,
    MissingTensors,
    NotDiscovered,
    NotFound,
    PathEscapes,
    PickleCheckpoint,
    QuotaExceeded,
    Unauthenticated,
    Unavailable,
    UnknownMethod,
    UnsafeConfig,
    UnsupportedArchitecture,
    UnusableModel,
)
from secateur_wire.models import Model

router = Router(prefix="/v1/models", tags=["models"])


@router.get("", responses=problems(Unauthenticated, InvalidRequest))
def list_models(caller: Viewer, session: DatabaseSession, limit: Limit = 50, after: After = None) -> Page[Model]:
    """List the team's models, newest first."""
    return service.list_models(session, caller.team_id, limit=limit, after=after)


@router.post(
    "",
    status_code=201,
    response_model=Model,
    responses=problems(
        Unauthenticated,
        Forbidden,
        Conflict,
        IdempotencyConflict,
        InvalidRequest,
        PathEscapes,
        UnsupportedArchitecture,
        UnusableModel,
        UnsafeConfig,
        PickleCheckpoint,
        CorruptSafetensors,
        MissingTensors,
        Unavailable,
        besides={200: {"model": Model, "description": "The same content has that name already"}},
    ),
)
def register_model(body: ModelBody, caller: Admin, state: State, once: CreateOnce) -> Response:
    """Register a model folder on the server: safetensors and a config, which are read and never executed.

    For an unlisted architecture a discovery is requested; the model is registered at once.
    """

    def create(session: Session, read: service.ReadModel) -> tuple[int, BaseModel]:
        model, is_new = service.register_model(session, caller, read)
        return (201 if is_new else 200), model

    slot = partial(state.check_slots.slot, caller.team_id)
    return once.answer_after(caller, body, lambda: service.read_model(body, state.settings, slot), create)


@router.post(
    "/inspect",
    response_model=Inspection,
    responses=problems(
        Unauthenticated,
        InvalidRequest,
        UnknownMethod,
        *BODY_ERRORS,
        DiscoveryFailed,
        QuotaExceeded,
        *HUB_ERRORS,
        besides={202: LATER},
    ),
)
def inspect_model(body: InspectBody, caller: Viewer, session: DatabaseSession, state: State) -> Inspection | Response:
    """Describe a model and the methods that fit it; with a job body, do a dry run of a submit with rough estimates.

    If the body has no method, or lacks a calibration that the method needs, the usual one is used, and `assumed` says
    so.

    If the model's architecture is not listed, a worker discovers it once for all teams: the answer is 202 until then,
    and an error if the architecture cannot be pruned.
    """
    findings = state.hub.of(caller.team_id, body)
    try:
        return inspect_assuming(state.request(session, caller, findings), body)
    except NotDiscovered as missing:
        return answer_later(ask_for(session, caller, missing, state.settings))
    except ValidationError as error:
        raise as_invalid_request(error) from error


@router.get("/{name}", responses=problems(Unauthenticated, NotFound))
def get_model(name: str, caller: Viewer, session: DatabaseSession) -> Model:
    """Return a model by name or id."""
    return service.model_answer(session, service.get_row(session, ModelRow, caller.team_id, name))


@router.delete(
    "/{name}",
    status_code=204,
    response_model=None,
    responses=problems(Unauthenticated, Forbidden, NotFound, Conflict),
)
def delete_model(name: str, caller: Member, state: State) -> None:
    """Delete a model that no waiting or running job needs.

    Uploaded files are removed; a path of the server stays.
    """
    with transaction(state.sessions) as session:
        prefixes = delete_registered(session, caller, ModelRow, name)
    remove_prefixes(state.store, prefixes)
