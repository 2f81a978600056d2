"""Sweeps: the team's list, a new one, and one with its points, its Pareto front and its result."""

import hashlib
import json
import secrets
from typing import Any, Final, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from pydantic import JsonValue, ValidationError
from starlette.responses import RedirectResponse, Response

from api.dependencies import After, DatabaseSession, Quality, State
from api.http.bodies import parse_body
from api.portal.forms.errors import errors_by_field, status_of
from api.portal.forms.job_fields import json_or_text
from api.portal.rendering import is_partial, page
from api.portal.session import Form, Member, Posted, Viewer
from api.portal.views.files import IfNoneMatch
from api.portal.views.method_cards import method_groups
from api.portal.views.trade_off import COSTS, pareto_plot, quality_in_words, trade_off_answer
from api.state import ApiState
from core.database import transaction
from core.service.jobs.idempotency import Answer, IdempotentRequest, answer_once
from core.service.jobs.schemas import JobBody
from core.service.registry.service import list_datasets, list_models
from core.service.sweeps import service
from core.service.sweeps.schemas import Constraints, Sweep, SweepBody
from core.service.teams.principal import Principal
from secateur_wire.body_fields import body_fields
from secateur_wire.errors import ApiError, InvalidRequest
from secateur_wire.job_fields import ENTRIES
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
_LIMITS: Final = {name: ENTRIES[f"gates.{name}"].label for name in Constraints.model_fields}
"""Limits of a search by name, with the labels of a job's gates."""
_FIELDS: Final = (
    "name", "model", "method", "sparsities", "varied", "calibration.dataset", "calibration.samples", "sequence_length",
    "evaluation.datasets", "evaluation.samples", "max_concurrent", "objective", "probe.samples", *_LIMITS,
)  # fmt: skip


@router.get("")
def list_sweeps(
    request: Request, caller: Viewer, session: DatabaseSession, after: After = None, before: After = None
) -> Response:
    sweeps = service.sweeps_window(session, caller.team_id, limit=_PAGE, after=after, before=before)
    context = {"sweeps": sweeps, "may_change": caller.may("member"), "paged": bool(after or before)}
    return page(request, "sweeps/list.html", context)


@router.get("/new")
def new_sweep(request: Request, caller: Viewer, state: State) -> Response:
    return _form_page(request, caller, state, Form({"kind": ["grid"], "sparsities": ["0.3, 0.5"]}))


@router.post("/new")
def submit_sweep(request: Request, caller: Member, state: State, posted: Posted) -> Response:
    """Start a sweep, or show the errors at the fields."""
    try:
        body = SweepBody.model_validate(read_sweep(posted))
        findings = service.look_up(state.hub, caller.team_id, body)
        payload = body.model_dump_json().encode()
        key = f"portal-{hashlib.sha256(posted.get(_ONCE).encode() + payload).hexdigest()}"
        once = IdempotentRequest(team_id=caller.team_id, key=key, request=payload, secret=state.secret)
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
    query = urlencode({name: value for name, value in shown.items() if value})
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
        "limits": _LIMITS,
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
        "limits": _LIMITS,
        "labels": {name: field.label for name, field in body_fields(JobBody).items()},
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
        return {name if name in _FIELDS else "": error.message}
    messages: dict[str, str] = {}
    for param, message in errors_by_field(error, _every_param(error)).items():
        name = field_of(param)
        messages.setdefault(name if name in _FIELDS else "", message)
    return messages or {"": InvalidRequest.title}


def _every_param(error: ValidationError) -> list[str]:
    return [".".join(str(part) for part in each["loc"]) for each in error.errors()]


def read_sweep(form: Form) -> dict[str, Any]:
    """Return the body of the fields.

    A value that cannot be converted to its type stays text, and the body's own validation reports it. Raises
    InvalidRequest where a field requires JSON.
    """
    job: dict[str, Any] = {"model": form.get("model")}
    length = _given(sequence_length=_number(form.get("sequence_length")))
    if calibration := form.get("calibration.dataset"):
        samples = _given(samples=_number(form.get("calibration.samples")))
        job["calibration"] = {"dataset": calibration, **samples, **length}
    if evaluated := _words(form.get("evaluation.datasets")):
        job["evaluation"] = {"datasets": evaluated, **_given(samples=_number(form.get("evaluation.samples"))), **length}
    body: dict[str, Any] = {"job": job} | _given(
        name=form.get("name") or None, max_concurrent=_number(form.get("max_concurrent"))
    )
    methods, sparsities = form.lists.get("method", []), [_number(each) for each in _words(form.get("sparsities"))]
    if form.get("kind") == "search":
        limits = {name: _number(form.get(name)) for name in _LIMITS if form.get(name)}
        search: dict[str, Any] = {"objective": form.get("objective"), "subject_to": limits, "methods": methods}
        search |= {"sparsities": sparsities} if sparsities else {}
        if probed := form.get("probe.samples"):
            search["probe"] = {"samples": _number(probed)}
        body["search"] = search
    else:
        grid = {name: values for name, values in (("method", methods), ("sparsity", sparsities)) if values}
        body["grid"] = grid | _varied(form.get("varied"))
    parse_body(json.dumps(body).encode())  # The API's limits apply to forms too.
    return body


def field_of(param: str | None) -> str | None:
    """Return the form field of a `param` of the body."""
    if param is None:
        return None
    name = param.removeprefix("search.subject_to.").removeprefix("search.").removeprefix("job.")
    return {"methods": "method", "grid": "method", "sequence_length": "sequence_length"}.get(name, name)


def _varied(text: str) -> dict[str, Any]:
    """Parse values by path, one path per line: `parameters.block_size = [64, 128]`."""
    varied: dict[str, Any] = {}
    for line in text.splitlines():
        path, separator, written = line.partition("=")
        values = json_or_text(written) if separator else None
        if not isinstance(values, list):
            raise InvalidRequest(
                f"{line.strip()[:100]!r}: write a path and a list of values, such as parameters.block_size = [64, 128]",
                param="varied",
            )
        varied[path.strip()] = values
    return varied


def _words(text: str) -> list[str]:
    return text.replace(",", " ").split()


def _number(text: str) -> JsonValue:
    """Return the number of a text, the text itself if it is not a number, None if it is empty."""
    number: JsonValue = json_or_text(text) if text else None
    return number if isinstance(number, int | float) else text or None


def _given(**fields: JsonValue) -> dict[str, JsonValue]:
    return {name: value for name, value in fields.items() if value is not None}
