"""Page of the measured costs of a model's parts in an engine, with the form that has a worker measure them."""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Final
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from pydantic import ValidationError
from starlette.responses import RedirectResponse, Response

from api.dependencies import DatabaseSession, State
from api.portal.forms.errors import errors_by_field, status_of
from api.portal.rendering import page
from api.portal.session import Member, Posted, Viewer, Visit
from core.database import transaction
from core.engine.latency.registry import ENGINES
from core.service.jobs.part_costs import look_up, measure
from core.service.jobs.resolution.context import RequestContext
from core.service.registry import service
from core.service.registry.tables import ModelRow
from secateur_wire.errors import InvalidRequest, NotDiscovered
from secateur_wire.part_costs import PartCostsAnswer, PartCostsBody

router = APIRouter(prefix="/models")

_FIELDS: Final = ("engine", "type", "threads", "batch", "prompt_tokens", "context_tokens", "queue")
_USUAL: Final = {"engine": "llama-cpp"}


@router.get("/{name}/costs")
def show_costs(request: Request, name: str, caller: Viewer, session: DatabaseSession) -> Response:
    given = {field: request.query_params.get(field, "") for field in _FIELDS}
    return _costs_page(Visit(request, session, caller), name, given, look_up)


@router.post("/{name}/costs")
def measure_costs(request: Request, name: str, caller: Member, state: State, posted: Posted) -> Response:
    """Have a worker measure, and show what there is meanwhile."""
    given = {field: posted.get(field) for field in _FIELDS}
    with transaction(state.sessions) as session:
        shown = _costs_page(Visit(request, session, caller), name, given, measure)
    if shown.status_code != HTTPStatus.OK:
        return shown
    return RedirectResponse(
        f"{request.url.path}?{urlencode({name: each for name, each in given.items() if each})}", 303
    )


def _costs_page(
    visit: Visit,
    name: str,
    given: Mapping[str, str],
    act: Callable[[RequestContext, PartCostsBody], PartCostsAnswer],
) -> Response:
    row = service.get_row(visit.session, ModelRow, visit.caller.team_id, name)
    values = _USUAL | {field: each for field, each in given.items() if each}
    costs, errors, status = None, {}, int(HTTPStatus.OK)
    try:
        body = PartCostsBody.model_validate({"model": row.name, **values})
        costs = act(visit.state.request(visit.session, visit.caller), body)
    except (InvalidRequest, NotDiscovered, ValidationError) as error:
        errors, status = errors_by_field(error, _FIELDS), status_of(error)
    context = {
        "model": row,
        "engines": [(info.id, info.title) for info in ENGINES.values()],
        "types": list(ENGINES[values["engine"]].types) if values["engine"] in ENGINES else [],
        "values": values,
        "errors": errors,
        "costs": costs,
    }
    return page(visit.request, "registry/costs.html", context, status=status)
