"""Checks of a sweep's points before it is accepted, as for submitted jobs: an accepted sweep can run."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import ValidationError
from sqlalchemy.orm import Session

from core.methods.registry import get_method
from core.pipeline.recipes.validation import check_without_model
from core.service.jobs.estimates.history import estimate_that_fits
from core.service.jobs.queue_names import require_queue
from core.service.jobs.resolution.context import RequestContext
from core.service.jobs.resolution.hub_lookup import HubFindings, HubLookup
from core.service.jobs.resolution.job import request_of, resolve_job
from core.service.jobs.resolution.model import find_model
from core.service.jobs.schemas import JobBody
from core.service.sweeps.grid import Document, RequestedPoint, verifying_body
from core.service.sweeps.schemas import Search, SweepBody
from core.service.sweeps.tables import SweepPointRow
from core.settings import Settings
from core.validation import describe_error
from secateur_wire.errors import InvalidRequest, NotDiscovered, SecateurError, Unavailable
from secateur_wire.job_body import Evaluation
from secateur_wire.requests import LONGEST_SHOWN
from secateur_wire.sweeps import SkippedPoint

UNKNOWN_PATTERN: Final = ""
"""Pattern of a point whose model is not discovered yet."""
_NAMED = 5
"""Maximum number of points that a refusal names; it counts the others."""


@dataclass(frozen=True)
class CheckedPoint:
    """Point that can run; `pattern` is resolved, `measures` names its evaluation (None: nothing is measured)."""

    requested: RequestedPoint
    pattern: str
    measures: str | None
    model: str
    model_revision: str
    pinned: str


@dataclass(frozen=True)
class CheckedPoints:
    points: list[CheckedPoint]
    skipped: list[SkippedPoint]


def find_on_hub(hub: HubLookup, team_id: str, bodies: Iterable[Document]) -> HubFindings:
    """Look up all hub names in these bodies, each name once. Must be called outside of any transaction."""
    findings = HubFindings()
    seen: set[bytes] = set()
    for body in bodies:
        named = {name: body.get(name) for name in ("model", "calibration", "evaluation", "recovery")}
        key = hashlib.sha256(json.dumps(named, sort_keys=True).encode()).digest()
        if key in seen:
            continue
        seen.add(key)
        try:
            parsed = JobBody.model_validate(body)
        except ValidationError:
            continue
        more = hub.of(team_id, parsed)
        findings.models.update(more.models)
        findings.datasets.update(more.datasets)
        findings.tasks.update(more.tasks)
    return findings


def names_on_hub(hub: HubLookup, body: Document) -> bool:
    """Return whether a body has names to look up on the hub."""
    try:
        return hub.asks(JobBody.model_validate(body))
    except ValidationError:
        return False


def check_sweep(
    context: RequestContext, body: SweepBody, requested: Sequence[RequestedPoint], *, is_model_known: bool = True
) -> CheckedPoints:
    """Check the points of a sweep, and for a search the full evaluation of one of them.

    Raises InvalidRequest that names the points that cannot run, unless the request skips them and some are left. Raises
    NotDiscovered and Unavailable where the check is not possible now. Without `is_model_known` only the parts that need
    no model are checked.
    """

    def check(point: RequestedPoint) -> CheckedPoint:
        checked = _checked if is_model_known else _checked_without_model
        return checked(context, point)

    param = "search" if body.search is not None else "grid" if body.grid is not None else "points"
    checked = _check_points(requested, check, param=param, skip_invalid=body.skip_invalid)
    if body.search is not None:  # The full evaluation must measure everything that the limits need.
        full = _in_full(body.job, body.search, checked.points[0].requested.values)
        _check_points([full], check, param="search", skip_invalid=False)
    return checked


def point_row(sweep_id: str, number: int, point: CheckedPoint) -> SweepPointRow:
    """Return the row of a point of a sweep."""
    return SweepPointRow(
        sweep_id=sweep_id,
        number=number,
        stage=point.requested.stage,
        point_values=point.requested.values,
        pattern=point.pattern,
        measures=point.measures,
        again=False,
    )


def _in_full(job: Document, search: Search, values: Document) -> RequestedPoint:
    """Return the full evaluation of a point; raises InvalidRequest for a limit whose figure nothing measures."""
    evaluation = job.get("evaluation")
    has_tasks = isinstance(evaluation, dict) and bool(evaluation.get("tasks"))
    if search.subject_to.max_task_accuracy_drop is not None and not has_tasks:
        raise InvalidRequest(
            "search.subject_to.max_task_accuracy_drop needs tasks to measure on: name some in job.evaluation.tasks",
            param="search.subject_to",
        )
    asks = isinstance(evaluation, dict) and bool(evaluation.get("answers"))
    for limit in ("max_answer_kl", "max_length_ratio"):
        if getattr(search.subject_to, limit) is not None and not asks:
            raise InvalidRequest(
                f"search.subject_to.{limit} needs questions to measure on: name a set in job.evaluation.answers",
                param="search.subject_to",
            )
    return RequestedPoint(values, verifying_body(job, search, values), "full")


def _check_points(
    requested: Sequence[RequestedPoint],
    check: Callable[[RequestedPoint], CheckedPoint],
    *,
    param: str,
    skip_invalid: bool,
) -> CheckedPoints:
    points: list[CheckedPoint] = []
    skipped: list[SkippedPoint] = []
    for each in requested:
        try:
            points.append(check(each))
        except ValidationError as error:
            skipped.append(SkippedPoint(values=each.values, reason=first_error(error)))
        except (NotDiscovered, Unavailable):
            raise
        except SecateurError as error:
            skipped.append(SkippedPoint(values=each.values, reason=error.message))
    if skipped and not (skip_invalid and points):
        named = "; ".join(f"({_shown(each.values)}): {each.reason}" for each in skipped[:_NAMED])
        others = f"; and {len(skipped) - _NAMED} more" if len(skipped) > _NAMED else ""
        advice = "" if skip_invalid or not points else ". Leave these out, or ask for skip_invalid"
        raise InvalidRequest(
            f"{len(skipped)} of {len(requested)} points cannot be run: {named}{others}{advice}", param=param
        )
    return CheckedPoints(points, skipped)


def _checked(context: RequestContext, requested: RequestedPoint) -> CheckedPoint:
    body = _body(context.session, requested, context.settings)
    resolved = resolve_job(context, body)
    estimate_that_fits(context.session, context.team_id, resolved, context.settings)
    return CheckedPoint(
        requested=requested,
        pattern=resolved.recipe.pattern,
        measures=evaluation_key(resolved.recipe.evaluation),
        model=resolved.model.name,
        model_revision=resolved.model.revision,
        pinned=resolved.model.pinned,
    )


def _checked_without_model(context: RequestContext, requested: RequestedPoint) -> CheckedPoint:
    body = _body(context.session, requested, context.settings)
    check_without_model(request_of(body))
    model = find_model(context, body.model)
    return CheckedPoint(
        requested=requested,
        pattern=UNKNOWN_PATTERN,
        measures=None,
        model=model.reference.name,
        model_revision=model.reference.revision,
        pinned=model.pinned,
    )


def _body(session: Session, requested: RequestedPoint, settings: Settings) -> JobBody:
    """Return the body of a point's job; raises pydantic's ValidationError, and InvalidRequest kinds."""
    body = JobBody.model_validate(requested.body)
    if get_method(body.method).measures:
        raise InvalidRequest(
            f"{body.method} measures layers and makes no model: a sweep has nothing to compare", param="method"
        )
    require_queue(session, body.queue, settings)
    return body


def evaluation_key(evaluation: Evaluation) -> str | None:
    """Return a key that is equal for jobs with the same measurements of the dense model; None without measurements."""
    if not evaluation.datasets and not evaluation.tasks:
        return None
    measurement = evaluation.model_dump(mode="json", exclude={"prompts", "prompt_tokens"})
    return hashlib.sha256(json.dumps(measurement, sort_keys=True).encode()).hexdigest()[:16]


def first_error(error: ValidationError) -> str:
    """Return the field and the message of the first error."""
    return describe_error(error.errors(include_url=False)[0])[1]


def _shown(values: Document) -> str:
    shown = ((name, value if isinstance(value, str) else json.dumps(value)) for name, value in values.items())
    return ", ".join(f"{name}={value[:LONGEST_SHOWN]}" for name, value in shown)
