"""Full form for a new job: every field of its body, checked while the user types."""

import hashlib
import secrets
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, Query, Request
from starlette.responses import RedirectResponse, Response

from api.dependencies import State
from api.events.after_commit import hint_after_commit
from api.portal.formatting import count
from api.portal.forms.job import lines_of, minimal
from api.portal.forms.job_fields import rows_of, shown_default
from api.portal.forms.new_job import FILLED_FOR, GOALS, ONCE, Draft, draft_job, form_of_job, shown_variant
from api.portal.rendering import is_partial, page
from api.portal.session import Form, Posted, Viewer, Visit, read_form
from api.portal.views.method_cards import method_groups
from api.portal.views.reproduce import commands_for
from api.state import ApiState
from core.database import transaction
from core.engine.evaluation.zero_shot_tasks import TASKS
from core.engine.exporters.registry import ADDED
from core.methods.registry import METHODS
from core.service.jobs import service
from core.service.jobs.idempotency import Answer, IdempotentRequest, answer_once
from core.service.jobs.resolution.hub_lookup import HubFindings
from core.service.jobs.schemas import Job, JobBody
from core.service.plans.assumptions import USUAL_METHODS
from core.service.registry.service import list_datasets, list_models
from core.service.teams.principal import Principal
from secateur_wire.datasets import Dataset
from secateur_wire.errors import ApiError
from secateur_wire.job_fields import ENTRIES
from secateur_wire.models import Model

router = APIRouter(prefix="/new/full")

CHECK = "check"
BY_HAND = "by-hand"
"""Value of a check that the user starts; the page starts one after each change."""
_MOST_CHOICES = 100
"""Maximum number of models, datasets and jobs in the lists; others can be typed."""


@router.get("")
def full_form_page(
    request: Request,
    caller: Viewer,
    state: State,
    job_id: Annotated[str | None, Query(alias="from", max_length=100)] = None,
) -> Response:
    """Show the form, filled in from the query, and from the job of `from` if it is given."""
    form = read_form(request.query_params.multi_items()).without({CHECK})
    if job_id is not None:
        with transaction(state.sessions) as session:
            form = form.filled_from(form_of_job(service.get_job(session, caller.team_id, job_id)))
    choices = _choices(state, caller)
    return _page(request, draft_job(state, caller, form, choices.datasets), choices)


@router.post("")
def submit_job(request: Request, caller: Viewer, state: State, posted: Posted, background: BackgroundTasks) -> Response:
    """Submit the job, or with `check` only show the result of a dry run."""
    form = posted.without({CHECK})
    choices = _choices(state, caller)
    if posted.get(CHECK):
        draft = draft_job(state, caller, form, choices.datasets)
        was_checked = BY_HAND in posted.lists[CHECK]
        if is_partial(request):
            return _changes(request, form, draft, choices, was_checked=was_checked)
        return _page(request, draft, choices, was_checked=was_checked)
    caller.require("member")
    draft = draft_job(state, caller, form, choices.datasets)
    if draft.body is not None and not draft.is_refused:
        try:
            on_hub = state.hub.of(caller.team_id, draft.body)
            with transaction(state.sessions) as session:
                job, is_new = _submit_once(Visit(request, session, caller), posted.get(ONCE), draft.body, on_hub)
            if is_new:
                hint_after_commit(background, state, job)
            return RedirectResponse(f"/portal/jobs/{job.id}", 303)
        except ApiError as error:
            draft.refuse(error)
    return _page(request, draft, choices, status=draft.status)


def _submit_once(visit: Visit, once: str, body: JobBody, hub: HubFindings) -> tuple[Job, bool]:
    """Return the job, and whether it is new: a button that is pressed twice submits once."""
    session, caller, state = visit.session, visit.caller, visit.state

    def submit() -> Job:
        return service.submit(state.request(session, caller, hub), body)

    if not once:
        return submit(), True
    payload = body.model_dump_json().encode()
    key = f"portal-{hashlib.sha256(once.encode() + payload).hexdigest()}"
    request = IdempotentRequest(team_id=caller.team_id, key=key, request=payload, secret=state.secret)
    answer, is_replayed = answer_once(
        session, request, lambda: Answer(201, submit().model_dump_json().encode()), state.settings.idempotency_seconds
    )
    return Job.model_validate_json(answer.body), not is_replayed


@dataclass(frozen=True)
class _Choices:
    """Choices of the team in the form: the newest of each kind."""

    models: list[Model]
    datasets: list[Dataset]
    jobs: list[Job]


def _choices(state: ApiState, caller: Principal) -> _Choices:
    with transaction(state.sessions) as session:
        team = caller.team_id
        models = list_models(session, team, limit=_MOST_CHOICES, after=None).data
        datasets = list_datasets(session, team, limit=_MOST_CHOICES, after=None).data
        jobs = service.list_jobs(session, team, limit=_MOST_CHOICES, after=None, status="succeeded").data
    pruning_jobs = [each for each in jobs if each.method in METHODS and not METHODS[each.method].measures]
    return _Choices(models, datasets, pruning_jobs)


def _page(
    request: Request, draft: Draft, choices: _Choices, *, status: int | None = None, was_checked: bool = False
) -> Response:
    """Render the whole page; before a submit, empty fields are not errors."""
    if status is None and not draft.form.get("model"):
        draft.errors.clear()
    context = _context(request, draft, choices) | {
        "was_submitted": status is not None,
        "was_checked": was_checked,
    }
    return page(request, "full_form/page.html", context, status=status or 200)


def _changes(request: Request, sent: Form, draft: Draft, choices: _Choices, *, was_checked: bool) -> Response:
    """Render the parts that htmx replaces: the model's description, and the fields that were filled in."""
    if not sent.get("model"):
        draft.errors.clear()
    filled = {name for name in draft.fields if draft.form.lists.get(name) != sent.lists.get(name)}
    is_new_task = draft.form.get(FILLED_FOR) != sent.get(FILLED_FOR)
    changed = {
        "methods": "method" in filled,
        "parameters": draft.variant is not shown_variant(sent),
        "target": "sparsity" in filled,
        "recovery": any(name.startswith("recovery.") for name in filled),
        "data": is_new_task or any(name.startswith(("calibration.", "evaluation.")) for name in filled),
    }
    context = _context(request, draft, choices) | {"changed": changed, "was_checked": was_checked}
    return page(request, "full_form/changes.html", context)


def _offered(draft: Draft, choices: _Choices) -> dict[str, list[tuple[str, str]]]:
    """Return the values of fields with checkboxes, each with its note."""
    is_of_images = draft.inspection is not None and draft.inspection.classes is not None
    fitting = [each for each in choices.datasets if (each.images is not None) is is_of_images]
    return {
        "datasets": [
            (each.name, f"{count(each.characters)} characters" if each.images is None else f"{each.images} images")
            for each in fitting
        ],
        "exports": [(f"{form}:{name}", "") for form, each in ADDED.items() for name in each.types],
        "tasks": [(each.id, each.title.partition(": ")[2]) for each in TASKS.values()],
    }


def _context(request: Request, draft: Draft, choices: _Choices) -> dict[str, Any]:
    url = f"{request.url.scheme}://{request.url.netloc}"
    used = draft.form.lists.keys() | draft.errors.keys()
    usual = USUAL_METHODS["language-model" if draft.inspection is None else draft.inspection.task]
    first_method = draft.form.get("method") if draft.method else usual
    return {
        "rows_of": lambda group: rows_of(group, draft.fields),
        "shown_default": shown_default,
        "goals": GOALS,
        "entries": ENTRIES,
        "offered": _offered(draft, choices),
        "names_of": lambda part: [name for name in draft.fields if name.startswith(part)],
        "has_errors": lambda parts: any(name.partition(".")[0] in parts for name in draft.errors),
        "is_used": lambda names: not used.isdisjoint(names),
        "lines_of": lines_of,
        "once": draft.form.get(ONCE) or secrets.token_hex(8),
        "draft": draft,
        "form": draft.form,
        "fields": draft.fields,
        "choices": choices,
        "groups": method_groups(),
        "first_method": first_method,
        "fits": {each.method: each for each in draft.inspection.methods} if draft.inspection else {},
        "usual_methods": {task: METHODS[each].title for task, each in USUAL_METHODS.items()},
        "commands": commands_for(minimal(draft.body), url) if draft.body else None,
    }
