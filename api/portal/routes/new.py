"""New job from three answers on one page: the model, the goal, and the amount."""

import math
import secrets
from dataclasses import dataclass
from typing import Any, Final, get_args
from urllib.parse import urlencode

from anyio import CapacityLimiter, WouldBlock, to_thread
from fastapi import APIRouter, BackgroundTasks, Request
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from api.dependencies import State
from api.portal.forms.new_job import ONCE, form_of_body
from api.portal.rendering import is_partial, page
from api.portal.routes.full_form import submit_job
from api.portal.session import Form, Posted, Viewer, read_form
from api.portal.views.model_choices import ModelChoice, facts_of, hub_choices, model_choices, nearest_models
from api.portal.views.outcome import estimates_from, expected_quality, outcome_axis, outcome_figures
from api.state import ApiState
from core.database import transaction
from core.engine.architectures.description import Description
from core.service.discoveries.requests import ask_for
from core.service.jobs.resolution.model import resolve_model
from core.service.jobs.schemas import JobBody
from core.service.plans.service import looked_up, plan
from core.service.sources.hub_search import HubMatch
from core.service.teams.principal import Principal
from core.validation import describe_error, share_hint
from secateur_wire.base import JsonObject
from secateur_wire.discoveries import Discovery
from secateur_wire.errors import ApiError, InvalidRequest, NotDiscovered, UnknownModel
from secateur_wire.plans import Goal, Plan, PlanBody

router = APIRouter(prefix="/new")

_MODEL: Final = "model"
_GOAL: Final = "for"
_AMOUNT: Final = "amount"
_SHOWN: Final = "shown"
"""Goal and model for which the page showed the amount; for others it is ignored."""
_SEARCH: Final = "search"
_FIELDS: Final = frozenset({_MODEL, _GOAL, _AMOUNT, _SHOWN, _SEARCH})
_GOALS: Final[dict[Goal, tuple[str, str]]] = {
    "speed": (
        "Faster and smaller on ordinary hardware",
        "Whole heads, channels or layers are removed. It needs no special runtime.",
    ),
    "size": (
        "Smaller to store and ship",
        "The same model in fewer bytes: zeros are left out of the files, or it is a GGUF file.",
    ),
    "sparsity": ("Sparse for a runtime of mine", "Weights become zero. Your runtime must make use of the zeros."),
    "sensitivity": (
        "Find out what it can lose",
        "Removes nothing. Prunes each layer alone, and reports what that costs.",
    ),
}
"""Goals by the words that people choose them by, each with its meaning."""


@dataclass(frozen=True)
class _Answers:
    """Answers as the user gave them; `amount` is None where the planner should choose it."""

    model: str
    goal: Goal
    amount: float | None = None

    @property
    def shown(self) -> str:
        """Return the text that records for which answers the page shows an amount."""
        return f"{self.goal} {self.model}"


@dataclass
class _PlannedJob:
    """State of a new job between the answers and the plan.

    `description` describes the model, `discovery` is the discovery to wait for, `plan` is the planner's plan, and
    `error` the reason why there is none. `has_model` is False where there is no model of that name.
    """

    answers: _Answers
    description: Description | None = None
    discovery: Discovery | None = None
    plan: Plan | None = None
    error: str | None = None
    has_model: bool = True


@router.get("")
def new_job_page(request: Request, caller: Viewer, state: State) -> Response:
    """Show the three answers and the plan; for any other field of a job, the full form filled in with it."""
    form = read_form(request.query_params.multi_items())
    if form.lists.keys() - _FIELDS:
        return RedirectResponse(f"/portal/new/full?{request.url.query}", 303)
    return _answers_page(request, caller, state, form)


@router.post("")
def submit_plan(
    request: Request, caller: Viewer, state: State, posted: Posted, background: BackgroundTasks
) -> Response:
    """Submit the job of the query, which the page showed, unless the search no longer names its model."""
    job = read_form(request.query_params.multi_items())
    with transaction(state.sessions) as session:
        choices = model_choices(session, caller.team_id, posted.get(_SEARCH), job.get(_MODEL))
    if job.get(_MODEL) in _names(state, posted.get(_SEARCH), choices):
        return submit_job(request, caller, state, job, background)
    return _answers_page(request, caller, state, posted, status=422)


def _answers_page(request: Request, caller: Viewer, state: ApiState, form: Form, *, status: int = 200) -> Response:
    """Render the answers and their plan. A model that the search does not name is none of them."""
    search = form.get(_SEARCH)
    with transaction(state.sessions) as session:
        choices = model_choices(session, caller.team_id, search, form.get(_MODEL))
        nearest = nearest_models(session, caller.team_id, search) if search and not choices else []
    answered = form
    if form.get(_MODEL) not in _names(state, search, choices):
        form = form.without({_MODEL}).with_defaults({_MODEL: choices[0].name} if choices else {})
    try:
        answers = _read_answers(form)
        planned = _plan_job(state, caller, answers)
    except InvalidRequest as error:
        answers = _Answers(form.get(_MODEL), "speed")
        planned = _PlannedJob(answers, error=error.message)
    known = state.hub_search.known(search)
    if not planned.has_model:
        on_hub_too = {each.name for each in known or ()}
        choices = [each for each in choices if each.is_known or each.name in on_hub_too]
    template = "new/answers.html" if is_partial(request) else "new/page.html"
    on_hub = None if known is None else hub_choices(known, choices)
    search_context = {
        "on_hub": on_hub,
        "nearest": nearest,
        "answered": {name: answered.get(name) for name in (_MODEL, _AMOUNT, _SHOWN) if name in answered.lists},
        "is_refused": status != 200,
    }
    return page(request, template, _context(form, planned, choices) | search_context, status=status)


def _names(state: ApiState, search: str, choices: list[ModelChoice]) -> set[str]:
    """Return the names of all models that a search shows, also from the hub."""
    return {each.name for each in choices} | {each.name for each in state.hub_search.known(search) or ()}


@router.get("/hub")
async def hub_models(request: Request, caller: Viewer, state: State) -> Response:
    """Show the models found on the hub; the page loads them afterwards, so that it waits for no network."""
    form = read_form(request.query_params.multi_items())
    matches = await _search_hub(state, form.get(_SEARCH))
    return await run_in_threadpool(_matches_page, request, caller.team_id, state, form, matches)


async def _search_hub(state: ApiState, words: str) -> tuple[HubMatch, ...]:
    """Return the models found on the hub; none while the maximum number of searches is running."""
    known = state.hub_search.known(words)
    if known is not None:
        return known
    search = object()
    try:
        state.search_slots.acquire_on_behalf_of_nowait(search)
    except WouldBlock:
        return ()
    try:
        return await to_thread.run_sync(state.hub_search.search, words, limiter=CapacityLimiter(1))
    finally:
        state.search_slots.release_on_behalf_of(search)


def _matches_page(
    request: Request, team_id: str, state: ApiState, form: Form, matches: tuple[HubMatch, ...]
) -> Response:
    with transaction(state.sessions) as session:
        choices = model_choices(session, team_id, form.get(_SEARCH), form.get(_MODEL))
    return page(request, "new/on_hub.html", {"on_hub": hub_choices(matches, choices)})


def _context(form: Form, planned: _PlannedJob, choices: list[ModelChoice]) -> dict[str, Any]:
    plan, model = planned.plan, planned.description
    fields = [] if plan is None else _fields(plan.job)
    return {
        "search": form.get(_SEARCH),
        "choices": choices,
        "goals": _GOALS,
        "answers": planned.answers,
        "planned": planned,
        "plan": plan,
        "model_facts": None if model is None else facts_of(model),
        "figures": [] if plan is None else outcome_figures(plan, None if model is None else model.bytes),
        "axis": None if plan is None else outcome_axis(plan),
        "quality": None if plan is None else expected_quality(plan),
        "estimates_from": "" if plan is None else estimates_from(plan),
        "job": urlencode([*fields, (ONCE, secrets.token_hex(8))]),
        "instead_fields": []
        if plan is None or plan.instead is None
        else [*_fields(plan.instead), (ONCE, secrets.token_hex(8))],
        "change": f"/portal/new/full?{urlencode(fields or [(_MODEL, planned.answers.model)])}",
    }


def _fields(job: JsonObject) -> list[tuple[str, str]]:
    """Return the fields of the full form for a job's body."""
    form = form_of_body(JobBody.model_validate(job))
    return [(name, value) for name, values in form.lists.items() for value in values]


def _read_answers(form: Form) -> _Answers:
    """Return the answers of a form, with the page's usual goal; raises InvalidRequest for an invalid amount."""
    given = form.get(_GOAL)
    goal: Goal = next((each for each in get_args(Goal) if each == given), "speed")
    answers = _Answers(form.get(_MODEL), goal)
    is_shown_for_these = form.get(_SHOWN, answers.shown) == answers.shown
    if not form.get(_AMOUNT) or not is_shown_for_these or goal == "sensitivity":
        return answers
    return _Answers(answers.model, goal, _amount(form.get(_AMOUNT)))


def _amount(text: str) -> float:
    try:
        amount = float(text)
    except ValueError:
        amount = math.nan
    if not 0 < amount < 1:
        raise InvalidRequest(
            f"{text[:40]!r} is no share: give one above 0 and below 1{share_hint(amount) or ', such as 0.3'}",
            param=_AMOUNT,
        )
    return amount


def _plan_job(state: ApiState, caller: Principal, answers: _Answers) -> _PlannedJob:
    """Plan the job; the discovery of an undiscovered model is requested first."""
    planned = _PlannedJob(answers)
    if not answers.model:
        return planned
    team_id = caller.team_id
    try:
        wanted = PlanBody(model=answers.model, goal=answers.goal, amount=answers.amount)
        findings = state.hub.of(team_id, looked_up(wanted))
        with transaction(state.sessions) as session:
            planned.description = resolve_model(state.request(session, team_id, findings), answers.model).description
        with transaction(state.sessions) as session:
            planned.plan = plan(state.request(session, team_id, findings), wanted)
    except NotDiscovered as missing:
        _have_discovered(planned, state, caller, missing)
    except ApiError as error:
        planned.error = error.message
        planned.has_model = planned.description is not None or not isinstance(error, UnknownModel)
    except ValidationError as error:
        planned.error = describe_error(error.errors(include_url=False)[0])[1]
    return planned


def _have_discovered(planned: _PlannedJob, state: ApiState, caller: Principal, missing: NotDiscovered) -> None:
    try:
        with transaction(state.sessions) as session:
            planned.discovery = ask_for(session, caller, missing, state.settings)
    except ApiError as error:
        planned.error = error.message
