"""Sweeps: the team's, a new one, and one with its points, its front and what it found."""

import hashlib
import secrets
from typing import Any, Final, Literal

from fastapi import APIRouter, Request
from pydantic import ValidationError
from starlette.responses import RedirectResponse, Response

from api.dependencies import After, DatabaseSession, Quality, State
from api.portal.forms.errors import errors_by_field, status_of
from api.portal.forms.sweep import FIELDS, LIMITS, field_of, read_sweep
from api.portal.rendering import is_partial, page
from api.portal.session import Form, Member, Posted, Viewer
from api.portal.views.charts import IfNoneMatch
from api.portal.views.method_cards import method_groups
from api.portal.views.trade_off import COSTS, pareto_plot, quality_in_words, trade_off_answer
from api.state import ApiState
from core.database import transaction
from core.errors import ApiError, InvalidRequest
from core.service.jobs.idempotency import Answer, IdempotentRequest, answer_once
from core.service.registry.service import list_datasets, list_models
from core.service.sweeps import service
from core.service.sweeps.schemas import Sweep, SweepBody
from core.service.teams.principal import Principal
from secateur_wire.sweeps import Cost

router = APIRouter(prefix="/sweeps")

_PAGE = 25
_MOST_CHOICES = 100
_OBJECTIVES: Final = (
    ("min_parameters", "Fewest parameters"),
    ("min_bytes", "Fewest bytes"),
    ("min_latency", "Least latency"),
)
_OBJECTIVE_WORDS: Final = {
    **dict(_OBJECTIVES),
    "min_perplexity": "Lowest perplexity",
    "max_accuracy": "Highest accuracy",
}
_ONCE = "once"


@router.get("")
def list_sweeps(
    request: Request, caller: Viewer, session: DatabaseSession, after: After = None, before: After = None
) -> Response:
    sweeps = service.look_through_sweeps(session, caller.team_id, limit=_PAGE, after=after, before=before)
    context = {"sweeps": sweeps, "may_change": caller.may("member"), "paged": bool(after or before)}
    return page(request, "sweeps/list.html", context)


@router.get("/new")
def new_sweep(request: Request, caller: Viewer, state: State) -> Response:
    return _form_page(request, caller, state, Form({"kind": ["grid"], "sparsities": ["0.3, 0.5"]}))


@router.post("/new")
def submit_sweep(request: Request, caller: Member, state: State, posted: Posted) -> Response:
    """Start it, or say at the fields what is wrong."""
    try:
        body = SweepBody.model_validate(read_sweep(posted))
        findings = service.look_up(state.hub, caller.team_id, body)
        said = body.model_dump_json().encode()
        key = f"portal-{hashlib.sha256(posted.get(_ONCE).encode() + said).hexdigest()}"
        once = IdempotentRequest(team_id=caller.team_id, key=key, request=said, secret=state.secret)
        with transaction(state.sessions) as session:

            def create() -> Answer:
                sweep = service.create(state.request(session, caller, findings), body)
                return Answer(201, sweep.model_dump_json().encode())

            answer, _ = answer_once(session, once, create, state.settings.idempotency_seconds)
    except (ApiError, ValidationError) as error:
        return _form_page(request, caller, state, posted, error=error)
    return RedirectResponse(f"/portal/sweeps/{Sweep.model_validate_json(answer.body).id}", 303)


@router.get("/{sweep_id}")
def show_sweep(
    request: Request,
    sweep_id: str,
    caller: Viewer,
    session: DatabaseSession,
    quality: Quality = None,
    cost: Cost | None = None,
) -> Response:
    """Show a sweep with its points; htmx polls for changes."""
    results = service.get_results(session, caller.team_id, sweep_id, quality=quality, cost=cost)
    trade = results.trade_off
    shown = {"quality": quality or "", "cost": cost or ""}
    query = "&".join(f"{name}={value}" for name, value in shown.items() if value)
    best: dict[int, list[str]] = {}
    for each in results.best:
        best.setdefault(each.number, []).append(_OBJECTIVE_WORDS[each.objective])
    context = {
        "results": results,
        "sweep": results.sweep,
        "run": [point for point in results.points if point.status not in ("waiting", "not_run")],
        "best": best,
        "trade": trade,
        "quality_words": quality_in_words(trade.quality) if trade.quality else None,
        "cost_words": COSTS[trade.cost],
        "plot": pareto_plot(trade),
        "quality_options": [(each, quality_in_words(each)) for each in trade.qualities],
        "cost_options": list(COSTS.items()),
        "png": f"/portal/sweeps/{sweep_id}/trade-off.png?{query}",
        "csv": f"/portal/sweeps/{sweep_id}/trade-off.csv?{query}",
        "here": f"/portal/sweeps/{sweep_id}?{query}",
        "limits": LIMITS,
        "objectives": _OBJECTIVE_WORDS,
        "may_change": caller.may("member"),
    }
    return page(request, "sweeps/live.html" if is_partial(request) else "sweeps/page.html", context)


@router.get("/{sweep_id}/trade-off.{form}")
def trade_off_file(
    sweep_id: str,
    caller: Viewer,
    session: DatabaseSession,
    form: Literal["png", "csv"],
    quality: Quality = None,
    cost: Cost | None = None,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Download quality against cost, with the Pareto front, as a picture or a table."""
    trade_off = service.get_results(session, caller.team_id, sweep_id, quality=quality, cost=cost).trade_off
    return trade_off_answer(trade_off, form, if_none_match)


@router.post("/{sweep_id}/cancel")
def cancel_sweep(sweep_id: str, caller: Member, session: DatabaseSession) -> Response:
    service.cancel(session, caller, sweep_id)
    return RedirectResponse(f"/portal/sweeps/{sweep_id}", 303)


@router.post("/{sweep_id}/resume")
def resume_sweep(sweep_id: str, caller: Member, session: DatabaseSession) -> Response:
    service.resume(session, caller, sweep_id)
    return RedirectResponse(f"/portal/sweeps/{sweep_id}", 303)


def _form_page(
    request: Request,
    caller: Principal,
    state: ApiState,
    form: Form,
    *,
    error: ApiError | ValidationError | None = None,
) -> Response:
    with transaction(state.sessions) as session:
        models = list_models(session, caller.team_id, limit=_MOST_CHOICES, after=None).data
        datasets = list_datasets(session, caller.team_id, limit=_MOST_CHOICES, after=None).data
    context: dict[str, Any] = {
        "form": form,
        "errors": _form_errors(error),
        "models": models,
        "datasets": datasets,
        "groups": [group for group in method_groups() if all(card.info.prunes for card in group.cards)],
        "objectives": list(_OBJECTIVES),
        "limits": LIMITS,
        "once": form.get(_ONCE) or secrets.token_hex(8),
        "may_submit": caller.may("member"),
    }
    return page(request, "sweeps/new.html", context, status=200 if error is None else status_of(error))


def _form_errors(error: ApiError | ValidationError | None) -> dict[str, str]:
    """Return the error messages by form field."""
    if error is None:
        return {}
    if isinstance(error, ApiError):
        name = field_of(error.param)
        return {name if name in FIELDS else "": error.message}
    messages: dict[str, str] = {}
    for param, said in errors_by_field(error, _every_param(error)).items():
        name = field_of(param)
        messages.setdefault(name if name in FIELDS else "", said)
    return messages or {"": InvalidRequest.title}


def _every_param(error: ValidationError) -> list[str]:
    return [".".join(str(part) for part in each["loc"]) for each in error.errors()]
