"""Draft of a new job: the values of its form, the resulting job, and the errors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import ValidationError

from api.portal.forms.job import field_for_param, form_of, minimal, read_body
from api.portal.forms.job_fields import job_fields
from api.portal.session import Form
from api.state import ApiState
from core.database import transaction
from core.methods.method_info import MethodInfo, Variant
from core.methods.registry import METHODS
from core.service.discoveries.requests import ask_for
from core.service.jobs.inspection import inspect
from core.service.jobs.schemas import InspectBody, Inspection, Job, JobBody
from core.service.plans.assumptions import USUAL_METHODS, usual_amount
from core.service.plans.job_bodies import (
    CALIBRATION_WORDS,
    EVALUATION_SAMPLES,
    EVALUATION_WORDS,
    PROMPTS,
    RECOVERIES,
    calibration_body,
    choose_set,
    fitting_sets,
    sequence_length,
    sequences_of,
)
from core.service.teams.principal import Principal
from core.validation import describe_error
from secateur_wire.body_fields import Field, parameter_fields
from secateur_wire.datasets import Dataset
from secateur_wire.discoveries import Discovery
from secateur_wire.errors import ApiError, NotDiscovered
from secateur_wire.models import ModelSummary

GOAL = "goal"
"""Field with the name of the selected field of `GOALS`; the other goals are ignored."""
ENGINE = "target.engine"
TIMES = ("target.latency_ratio", "target.decode_ratio")
"""Goals that may count in an engine of `ENGINE`."""
GOALS = ("sparsity", "target.parameters", "target.bytes", *TIMES, "target.memory_bytes")
SHOWN_FOR = "shown_for"
SHOWN_PATTERN = "shown_pattern"
"""Method and pattern whose parameters the page showed; parameters of another variant are ignored."""
FILLED_FOR = "filled_for"
"""Task of the model for which the page filled in fields; `AS_IS` to fill in none."""
AS_IS = "nothing"
FILLED = "filled"
"""Fields that the page filled in, each as name=value. Unchanged ones follow when the user chooses another method."""
_OF_THE_METHOD = ("sparsity", "target.", "calibration.", "recovery.")
"""Prefixes of the fields whose usual values depend on the method."""
ONCE = "once"
"""Random text of the page: the same job sent twice from it is one job."""


@dataclass
class Draft:
    """Draft of a job.

    `inspection` describes the model, `discovery` is the discovery to wait for, and `trial` is the dry run of the whole
    job. `filled` has the fields that the page filled in and the user has not changed, with their values. `errors` are
    by field, `general_errors` belong to no field.
    """

    form: Form
    body: JobBody | None = None
    inspection: Inspection | None = None
    discovery: Discovery | None = None
    trial: Inspection | None = None
    filled: dict[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    general_errors: list[str] = field(default_factory=list)
    status: int = 200

    @property
    def method(self) -> MethodInfo | None:
        return METHODS.get(self.form.get("method"))

    @property
    def variant(self) -> Variant | None:
        """Return the method as it is with the form's pattern."""
        return self.method.variant(self.form.get("pattern")) if self.method else None

    @property
    def fields(self) -> Mapping[str, Field]:
        return job_fields(self.form.get("method"), self.form.get("pattern"))

    @property
    def goal(self) -> str:
        """Return the field that sets how much to prune."""
        given = next((name for name in reversed(GOALS) if self.form.get(name)), GOALS[0])
        return self.form.get(GOAL) if self.form.get(GOAL) in GOALS else given

    @property
    def is_refused(self) -> bool:
        return bool(self.errors or self.general_errors)

    def refuse(self, error: ApiError) -> None:
        """Add an error to the field of its `param`."""
        self._keep(error.param, error.message, error.status)

    def refuse_all(self, error: ValidationError) -> None:
        for each in error.errors(include_url=False):
            self._keep(*describe_error(each), 422)

    def _keep(self, param: str | None, message: str, status: int) -> None:
        name = field_for_param(param, self.fields)
        if name is None:
            self.general_errors.append(message)
        else:
            self.errors.setdefault(name, message)
        self.status = max(self.status, status)


def shown_variant(form: Form) -> Variant | None:
    """Return the variant whose parameters the sent page showed, None where it showed none."""
    method = METHODS.get(form.get(SHOWN_FOR))
    return method.variant(form.get(SHOWN_PATTERN)) if method else None


def form_of_job(job: Job) -> Form:
    """Return the form of a job's request, without fields that its target or pattern implies."""
    return form_of_body(JobBody.model_validate(job.model_dump(include=set(JobBody.model_fields))))


def form_of_body(body: JobBody) -> Form:
    """Return the form of a complete body, without fields that its target or pattern implies; nothing is filled in."""
    least = minimal(body)
    method = METHODS.get(body.method)
    if body.target is not None or ":" in (body.pattern or ""):
        least.pop("sparsity", None)
    if method is None or not method.prunes:
        least.pop("pattern", None)
    return form_of(least).replaced({FILLED_FOR: AS_IS})


def draft_job(state: ApiState, caller: Principal, form: Form, datasets: Sequence[Dataset]) -> Draft:
    """Check a form: describe the model, fill in the usual fields, and do a dry run of the whole job."""
    draft, team_id = Draft(form), caller.team_id
    name = form.get("model")
    if name:
        try:
            draft.inspection = _inspect(state, team_id, InspectBody(model=name))
        except NotDiscovered as missing:
            draft.discovery = _have_discovered(draft, state, caller, missing)
        except ApiError as error:
            draft.refuse(error)
        except ValidationError as error:
            draft.refuse_all(error)
    if draft.inspection is not None:
        draft.form = _filled(draft, draft.inspection, datasets)
    try:
        draft.body = JobBody.model_validate(read_body(_meant(draft)))
    except ApiError as error:
        draft.refuse(error)
    except ValidationError as error:
        draft.refuse_all(error)
    if draft.inspection is None and not form.get("method"):
        draft.errors.pop("method", None)  # The field is filled in once the model is known.
    if draft.inspection is not None and draft.body is not None:
        try:
            draft.trial = _inspect(state, team_id, InspectBody.model_validate(minimal(draft.body)))
        except ApiError as error:
            draft.refuse(error)
    return draft


def _have_discovered(draft: Draft, state: ApiState, caller: Principal, missing: NotDiscovered) -> Discovery | None:
    """Request the discovery of the model; return None, and add an error, where that is not possible."""
    try:
        with transaction(state.sessions) as session:
            return ask_for(session, caller, missing, state.settings)
    except ApiError as error:
        draft.refuse(error)
        return None


def _inspect(state: ApiState, team_id: str, body: InspectBody) -> Inspection:
    findings = state.hub.of(team_id, body)
    with transaction(state.sessions) as session:
        return inspect(state.request(session, team_id, findings), body)


def _filled(draft: Draft, inspection: Inspection, datasets: Sequence[Dataset]) -> Form:
    """Return the form with the fields that the page fills in.

    For a new kind of model these are all usual fields. For another method they are the fields that the user has not
    changed since. So a user who names only a model gets a useful job. REST fills in less, because a program must state
    what it wants.
    """
    form, shown = draft.form, shown_variant(draft.form)
    draft.filled = _untouched(form)
    is_new_task = form.get(FILLED_FOR) not in (AS_IS, inspection.task)
    is_new_variant = shown is not None and shown is not draft.variant
    if is_new_task:
        form = with_method(form, inspection).replaced({FILLED_FOR: inspection.task})
    if is_new_variant:
        form = form.without([name for name in draft.filled if name.startswith(_OF_THE_METHOD)])
    if is_new_task or (is_new_variant and form.get(FILLED_FOR) != AS_IS):
        form = with_target(form, inspection)
    if is_new_task or is_new_variant:
        form = with_calibration(form, inspection, datasets)
    if is_new_task or (is_new_variant and form.get(FILLED_FOR) != AS_IS):
        form = with_recovery(form, inspection)
    if is_new_task:
        form = with_evaluation(form, inspection, datasets)
    draft.filled = {
        name: form.get(name)
        for name in form.lists
        if name.startswith(_OF_THE_METHOD) and (name in draft.filled or form.get(name) != draft.form.get(name))
    }
    return form


def _untouched(form: Form) -> dict[str, str]:
    """Return the fields that the page filled in and that still have the same value."""
    pairs = (each.partition("=") for each in form.lists.get(FILLED, []))
    return {name: value for name, _, value in pairs if form.get(name) == value}


def _meant(drafted: Draft) -> Form:
    """Return the form without ignored fields: other goals, and parameters of an earlier method."""
    form, method = drafted.form, drafted.method
    dropped: set[str] = set()
    if form.get(GOAL):
        dropped |= {*GOALS, *({ENGINE} if drafted.goal not in TIMES else ())} - {drafted.goal}
        if ":" in form.get("pattern"):
            dropped.add("sparsity")
        if method is not None and not method.prunes:
            dropped |= {*GOALS, ENGINE, "pattern"}
    shown = shown_variant(form)
    if shown is not None and shown is not drafted.variant:
        dropped |= parameter_fields(shown.parameters).keys() - drafted.fields.keys()
    return form.without(dropped)


def with_method(form: Form, model: ModelSummary) -> Form:
    """Return the form with the usual method for the model, if it has none."""
    return form if form.get("method") else form.replaced({"method": USUAL_METHODS[model.task]})


def with_target(form: Form, model: ModelSummary) -> Form:
    """Return the form with the usual sparsity, if it has neither a sparsity nor a target."""
    method = METHODS.get(form.get("method"))
    has_amount = any(name == "sparsity" or name.startswith("target.") for name in form.lists)
    if method is None or not method.prunes or has_amount or ":" in form.get("pattern"):
        return form
    return form.replaced({"sparsity": str(usual_amount(method.id, form.get("pattern"), model))})


def with_calibration(form: Form, model: ModelSummary, datasets: Sequence[Dataset]) -> Form:
    """Return the form with a calibration set, if the method needs one and the form has none.

    It is the registered set whose name suggests this use, else the largest one. For a language model without any set,
    it is text that the model generates.
    """
    method = METHODS.get(form.get("method"))
    if method is None or form.get("calibration.dataset"):
        return form
    if not method.variant(form.get("pattern")).needs.calibration:
        return form
    chosen = choose_set(fitting_sets(model, datasets), CALIBRATION_WORDS)
    body = calibration_body(model, chosen) or {}
    return form.with_defaults({f"calibration.{name}": str(value) for name, value in body.items()})


def with_recovery(form: Form, model: ModelSummary) -> Form:
    """Return the form with the planner's recovery, if whole units are removed and the form has none.

    A language model without a calibration text has no text for a recovery either.
    """
    method = METHODS.get(form.get("method"))
    if method is None or not method.prunes or form.get("recovery.method"):
        return form
    if not method.variant(form.get("pattern")).shrinks or method.needs.training or not form.get("calibration.dataset"):
        return form
    return form.with_defaults({f"recovery.{name}": str(value) for name, value in RECOVERIES[model.task].items()})


def with_evaluation(form: Form, model: ModelSummary, datasets: Sequence[Dataset]) -> Form:
    """Return the form with an evaluation set, if it measures nothing.

    A set that is not used for calibration is preferred. For a language model that the job changes, prompts are added
    too.
    """
    if form.get("evaluation.datasets") or form.get("evaluation.tasks"):
        return form
    fitting = fitting_sets(model, datasets)
    others = [each for each in fitting if each.name != form.get("calibration.dataset")]
    chosen = choose_set(others or fitting, EVALUATION_WORDS)
    if chosen is None:
        return form
    filled = {"evaluation.datasets": chosen.name}
    if chosen.images is None:
        given = form.get("calibration.sequence_length")
        length = int(given) if given.isdecimal() else sequence_length(model, chosen)
        if not given:
            filled["evaluation.sequence_length"] = str(length)
        filled["evaluation.samples"] = str(sequences_of(chosen, length, EVALUATION_SAMPLES))
        method = METHODS.get(form.get("method"))
        if method is not None and not method.measures:
            filled["evaluation.prompts"] = "\n".join(PROMPTS)
    return form.with_defaults(filled)
