"""A new job in three answers, on one page: which model, what for, how much."""

import secrets
from typing import Any
from urllib.parse import urlencode

from anyio import CapacityLimiter, WouldBlock, to_thread
from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from api.dependencies import State
from api.portal.forms.new_job import ONCE, form_of_body
from api.portal.forms.plan import (
    FIELDS,
    GOALS,
    MODEL,
    SEARCH,
    Answers,
    PlannedJob,
    plan_job,
    read_answers,
)
from api.portal.rendering import is_partial, page
from api.portal.session import Form, Viewer, read_form
from api.portal.views.model_choices import ModelChoice, facts_of, hub_choices, model_choices
from api.portal.views.outcome import estimates_from, expected_quality, outcome_axis, outcome_figures
from api.state import ApiState
from core.database import transaction
from core.errors import InvalidRequest
from core.service.jobs.schemas import JobBody
from core.service.sources.hub_search import HubMatch

router = APIRouter(prefix="/new")


@router.get("")
def new_job_page(request: Request, caller: Viewer, state: State) -> Response:
    """Show the three answers and what they come to; with any other field of a job, the full form filled in with it."""
    form = read_form(request.query_params.multi_items())
    if form.lists.keys() - FIELDS:
        return RedirectResponse(f"/portal/new/full?{request.url.query}", 303)
    with transaction(state.sessions) as session:
        choices = model_choices(session, caller.team_id, form.get(SEARCH), form.get(MODEL))
    try:
        answers = read_answers(form, choices[0].name if choices else "")
        planned = plan_job(state, caller, answers)
    except InvalidRequest as error:
        answers = Answers(form.get(MODEL), "speed")
        planned = PlannedJob(answers, error=error.message)
    template = "new/answers.html" if is_partial(request) else "new/page.html"
    known = state.hub_search.known(form.get(SEARCH))
    on_hub = None if known is None else hub_choices(known, choices)
    return page(request, template, _context(form, planned, choices) | {"on_hub": on_hub})


@router.get("/hub")
async def hub_models(request: Request, caller: Viewer, state: State) -> Response:
    """Show what a search finds on the hub; the page asks for it once it is there, so that it waits for no network."""
    form = read_form(request.query_params.multi_items())
    matches = await _search_hub(state, form.get(SEARCH))
    return await run_in_threadpool(_matches_page, request, caller.team_id, state, form, matches)


async def _search_hub(state: ApiState, words: str) -> tuple[HubMatch, ...]:
    """Return what a search finds on the hub; nothing while as many searches as may wait for it already."""
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
        choices = model_choices(session, team_id, form.get(SEARCH), form.get(MODEL))
    return page(request, "new/on_hub.html", {"on_hub": hub_choices(matches, choices)})


def _context(form: Form, planned: PlannedJob, choices: list[ModelChoice]) -> dict[str, Any]:
    plan, model = planned.plan, planned.description
    body = None if plan is None else form_of_body(JobBody.model_validate(plan.job))
    fields = [] if body is None else [(name, value) for name, values in body.lists.items() for value in values]
    return {
        "search": form.get(SEARCH),
        "choices": choices,
        "goals": GOALS,
        "answers": planned.answers,
        "planned": planned,
        "plan": plan,
        "model_facts": None if model is None else facts_of(model),
        "figures": [] if plan is None else outcome_figures(plan, None if model is None else model.bytes),
        "axis": None if plan is None else outcome_axis(plan),
        "quality": None if plan is None else expected_quality(plan),
        "estimates_from": "" if plan is None else estimates_from(plan),
        "fields": [*fields, (ONCE, secrets.token_hex(8))],
        "change": f"/portal/new/full?{urlencode(fields or [(MODEL, planned.answers.model)])}",
    }
