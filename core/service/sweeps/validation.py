"""Check of a sweep's points before it is accepted, as of submitted jobs: an accepted sweep can run."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pydantic import ValidationError
from sqlalchemy.orm import Session

from core.errors import InvalidRequest, NotDiscovered, SecateurError, Unavailable
from core.methods.registry import get_method
from core.pipeline.recipes.parts import Evaluation
from core.service.jobs.estimates.history import estimate_that_fits
from core.service.jobs.queue_names import require_queue
from core.service.jobs.resolution.hub_lookup import HubFindings, HubLookup
from core.service.jobs.resolution.job import resolve_job
from core.service.jobs.schemas import JobBody
from core.service.sweeps.grid import Document, RequestedPoint
from core.settings import Settings
from core.storage import Store
from core.validation import describe_error
from secateur_wire.sweeps import SkippedPoint

_NAMED = 5
"""Points that a refusal names; it counts the others."""


@dataclass(frozen=True)
class CheckedPoint:
    """Point that can be run; `pattern` is resolved, `measures` names its evaluation (None: nothing is measured)."""

    requested: RequestedPoint
    body: JobBody
    pattern: str
    measures: str | None
    model: str
    model_revision: str


@dataclass(frozen=True)
class CheckedPoints:
    points: list[CheckedPoint]
    skipped: list[SkippedPoint]


def find_on_hub(hub: HubLookup, team_id: str, bodies: Iterable[Document]) -> HubFindings:
    """Look up all that these bodies name on the hub, each name once. To be called outside of any transaction."""
    findings = HubFindings()
    seen: set[str] = set()
    for body in bodies:
        named = {name: body.get(name) for name in ("model", "calibration", "evaluation", "recovery")}
        key = json.dumps(named, sort_keys=True)
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


def check_points(
    session: Session,
    team_id: str,
    requested: Sequence[RequestedPoint],
    *,
    param: str,
    skip_invalid: bool,
    store: Store,
    settings: Settings,
    hub: HubFindings,
) -> CheckedPoints:
    """Check the points of a sweep.

    Raises InvalidRequest naming the points that cannot run, unless they are to be skipped and some are left;
    NotDiscovered and Unavailable where that cannot be decided now.
    """
    points: list[CheckedPoint] = []
    skipped: list[SkippedPoint] = []
    for each in requested:
        try:
            points.append(_checked(session, team_id, each, store=store, settings=settings, hub=hub))
        except ValidationError as error:
            skipped.append(SkippedPoint(values=each.values, reason=first_error(error)))
        except (NotDiscovered, Unavailable):
            raise
        except SecateurError as error:
            skipped.append(SkippedPoint(values=each.values, reason=error.message))
    if skipped and not (skip_invalid and points):
        named = "; ".join(f"({_shown(each.values)}): {each.reason}" for each in skipped[:_NAMED])
        others = f"; and {len(skipped) - _NAMED} more" if len(skipped) > _NAMED else ""
        way_out = "" if skip_invalid or not points else ". Leave these out, or ask for skip_invalid"
        raise InvalidRequest(
            f"{len(skipped)} of {len(requested)} points cannot be run: {named}{others}{way_out}", param=param
        )
    return CheckedPoints(points, skipped)


def _checked(
    session: Session, team_id: str, requested: RequestedPoint, *, store: Store, settings: Settings, hub: HubFindings
) -> CheckedPoint:
    body = JobBody.model_validate(requested.body)
    if get_method(body.method).measures:
        raise InvalidRequest(
            f"{body.method} measures layers and makes no model: a sweep has nothing to compare", param="method"
        )
    require_queue(session, body.queue, settings)
    resolved = resolve_job(session, team_id, body, store, hub)
    estimate_that_fits(session, team_id, resolved, settings)
    return CheckedPoint(
        requested=requested,
        body=body.model_copy(update={"model": resolved.model.pinned}),
        pattern=resolved.recipe.pattern,
        measures=evaluation_key(resolved.recipe.evaluation),
        model=resolved.model.name,
        model_revision=resolved.model.revision,
    )


def evaluation_key(evaluation: Evaluation) -> str | None:
    """Return a key, equal for jobs whose dense model is measured alike; None where nothing of it is measured."""
    if not evaluation.datasets and not evaluation.tasks:
        return None
    measurement = evaluation.model_dump(mode="json", exclude={"prompts", "prompt_tokens"})
    return hashlib.sha256(json.dumps(measurement, sort_keys=True).encode()).hexdigest()[:16]


def first_error(error: ValidationError) -> str:
    """Return the first error: the field, and its fault."""
    return describe_error(error.errors(include_url=False)[0])[1]


def _shown(values: Document) -> str:
    return ", ".join(
        f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in values.items()
    )
