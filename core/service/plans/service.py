"""Service of plans: the best job for a goal and a model, by what is known so far."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from sqlalchemy import select

from core.engine.architectures.description import Description
from core.engine.options.patterns import parse_pattern
from core.pipeline.reports.equal_bytes import alternatives_to_pruning
from core.service.jobs.alternatives import with_measured
from core.service.jobs.resolution.context import RequestContext
from core.service.jobs.resolution.model import ResolvedModel, resolve_model
from core.service.jobs.runtimes import writable_forms
from core.service.jobs.schemas import InspectBody
from core.service.plans.candidates import CANDIDATES, JobCandidate
from core.service.plans.planner import Planner
from core.service.plans.vocabulary import unused_tokens
from core.service.registry.service import dataset_answer
from core.service.registry.tables import DatasetRow
from secateur_wire.base import JsonObject
from secateur_wire.datasets import Dataset
from secateur_wire.errors import InvalidRequest, SecateurError, UnusableModel
from secateur_wire.metrics import Alternative
from secateur_wire.plans import Plan, PlanBody

_MOST_SETS: Final = 1000
_FILES: Final[JsonObject] = {"format": "gguf", "types": ["Q8_0"]}
"""Additional files of a plan, where the workers can write them."""
_OF_REQUEST: Final = frozenset({"keep_quality", "dataset", "pattern"})
"""Request fields whose faults are the same for every candidate."""


def looked_up(body: PlanBody) -> InspectBody:
    """Return the body whose hub names have to be looked up for a plan (`HubLookup.of`)."""
    named = {"model": body.model}
    if body.dataset is None:
        return InspectBody.model_validate(named)
    return InspectBody.model_validate(
        {**named, "method": "wanda", "sparsity": 0.5, "calibration": {"dataset": body.dataset}}
        | {"evaluation": {"datasets": [body.dataset]}}
    )


def plan(context: RequestContext, body: PlanBody, *, until: datetime | None = None) -> Plan:
    """Return the plan for a goal: a job body to submit, the reasons for it, and the expected outcome.

    `until` makes a plan in retrospect: only the team's jobs that had ended by then are used.

    Raises InvalidRequest kinds that name the fault: a goal that does not fit the model; an amount or a quality out of
    reach, with the nearest possible value. Raises the errors of a submit for the model and the dataset, and
    NotDiscovered where the model is not discovered yet.
    """
    model = resolve_model(context, body.model)
    _check(body, model.description)
    datasets = _datasets(context)
    is_writing = _FILES["format"] in writable_forms(context)
    is_shipped = is_writing and body.goal in ("speed", "size")
    written: list[list[JsonObject]] = [[_FILES], []] if is_shipped else [[]]
    alternatives = () if body.goal == "sensitivity" else _alternatives(context, model)
    unused = unused_tokens(context, body, model, datasets)
    of_tokens = None
    refusals: list[tuple[JobCandidate, SecateurError]] = []
    for candidate in CANDIDATES[model.description.task][body.goal]:
        if candidate.removes_tokens and (unused is None or not unused.is_first):
            continue
        taken = candidate if body.pattern is None else replace(candidate, pattern=parse_pattern(body.pattern).text)
        planner = Planner(
            context, body, model, taken, tuple(refusals), alternatives, is_writing=is_writing, unused=unused
        )
        for exports in written if not taken.needs_files else filter(None, written):
            try:
                planned = replace(planner, exports=exports, until=until).plan(datasets)
            except (InvalidRequest, UnusableModel) as error:
                if of_tokens is not None and error.param == "keep_quality" and _is_kept(of_tokens, body):
                    return of_tokens
                if error.param in _OF_REQUEST and not taken.needs_files:
                    raise
                refused = error
                if not (error.param or "").startswith("output.exports"):
                    break
                continue
            if candidate.removes_tokens:
                of_tokens = planned
                break
            return planned if of_tokens is None or body.keep_quality is not None else _with_more(of_tokens, planned)
        if not taken.needs_files and not taken.removes_tokens:
            refusals.append((candidate, refused))
    if of_tokens is not None:
        return of_tokens
    first = refusals[0][1]
    if first.param in ("sparsity", "parameters.drop_layers"):
        first.param = "amount"
    raise first


def _is_kept(of_tokens: Plan, body: PlanBody) -> bool:
    """Return whether a plan that removes unused tokens is not known to miss the quality that was asked for."""
    figure = of_tokens.figures.get("perplexity_ratio")
    return figure is None or body.keep_quality is None or figure.high <= body.keep_quality


def _with_more(of_tokens: Plan, further: Plan) -> Plan:
    """Return a plan that removes unused tokens, with the points of a plan by which more goes, which costs quality."""
    more = [each for each in further.points if each.amount > (of_tokens.amount or 0.0)]
    return of_tokens.model_copy(update={"points": [*of_tokens.points, *more]})


def _check(body: PlanBody, description: Description) -> None:
    """Raise InvalidRequest for fields that do not apply to the goal or to the kind of model."""
    if body.goal == "sensitivity":
        for name in ("amount", "keep_quality"):
            if getattr(body, name) is not None:
                raise InvalidRequest(f"{name}: goal 'sensitivity' removes nothing: leave {name} out", param=name)
    if body.pattern is not None and body.goal != "sparsity":
        raise InvalidRequest(
            f"pattern is only for goal 'sparsity', not for {body.goal!r}: leave it out", param="pattern"
        )
    if body.pattern is not None and parse_pattern(body.pattern).shrinks:
        raise InvalidRequest(
            "pattern: 'structured' leaves no zeros: use goal 'speed', or a pattern n:m", param="pattern"
        )
    if body.keep_quality is not None and not description.model_task.has_perplexity:
        raise InvalidRequest(
            f"keep_quality is a limit on perplexity, which {description.architecture} does not have: give amount, "
            "and limit the loss with the job's gates.max_accuracy_drop",
            param="keep_quality",
        )


def _alternatives(context: RequestContext, model: ResolvedModel) -> Sequence[Alternative]:
    counted = alternatives_to_pruning(model.description)
    return with_measured(context.session, context.team_id, model.revision, model.description.bytes, counted)


def _datasets(context: RequestContext) -> list[Dataset]:
    query = select(DatasetRow).where(DatasetRow.team_id == context.team_id).order_by(DatasetRow.created_at.desc())
    return [dataset_answer(row) for row in context.session.scalars(query.limit(_MOST_SETS))]
