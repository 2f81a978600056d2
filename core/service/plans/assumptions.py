"""Assumptions of an inspection: required parts of a job body that are filled in for an estimate.

A submit assumes nothing: a program must state what it wants.
"""

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.measurements.reader import measurements
from core.methods.registry import get_method
from core.pipeline.reports.verdict import SAME_AMOUNT, band_of
from core.service.jobs.inspection import inspect
from core.service.jobs.resolution.context import RequestContext
from core.service.jobs.resolution.dataset import SELF
from core.service.jobs.schemas import InspectBody, Inspection
from core.service.plans.job_bodies import CALIBRATION_WORDS, calibration_body, choose_set, fitting_sets
from core.service.registry.service import dataset_answer
from core.service.registry.tables import DatasetRow
from secateur_wire.base import JsonObject
from secateur_wire.errors import InvalidRequest
from secateur_wire.models import ModelSummary

USUAL_METHODS: Final[Mapping[str, str]] = {"language-model": "frontier", "image-classification": "magnitude"}
"""Default method by the task of a model."""
USUAL_ZEROS: Final = (0.5, 0.4, 0.3)
USUAL_UNITS: Final = (0.2, 0.15, 0.1, 0.05)
"""Shares of weights that become zero, and of parameters that are removed, which jobs usually ask for; largest first."""
_NOT_USUAL: Final = ("much worse", "unusable")
_MOST_SETS: Final = 1000


def usual_amount(method: str, pattern: str | None, model: ModelSummary) -> float:
    """Return the amount to remove if a job names none: the largest usual one that is not known to ruin the model.

    The shipped measurements know: the amount stays below every one after which the method, with its defaults or as a
    plan offers it, left a language model much worse. A baseline is compared at the amount of the others.
    """
    info = get_method(method)
    settings = [{}, *(offer.parameters for offer in info.offers)]
    variant = info.variant(pattern)
    ruinous = [
        row.sparsity
        for row in measurements("structured" if variant.shrinks else "zeros")
        if row.method == method and row.parameters in settings and row.recovery is None and ":" not in row.pattern
        if band_of(max(text.mean for text in row.perplexity.values())) in _NOT_USUAL
    ]
    usual = USUAL_UNITS if variant.shrinks else USUAL_ZEROS
    if model.reads_images or info.is_baseline or not ruinous:
        return usual[0]
    return next((each for each in usual if each < min(ruinous) - SAME_AMOUNT), usual[-1])


def inspect_assuming(context: RequestContext, body: InspectBody) -> Inspection:
    """Inspect a body as `inspect` does, with the usual method or calibration filled in where the body has none.

    `assumed` in the answer lists what was filled in. Raises the errors of `inspect`.
    """
    request: dict[str, Any] = body.model_dump()
    assumed: list[str] = []

    def inspected() -> Inspection:
        tried = InspectBody.model_validate(request)
        inspection = inspect(context, tried)
        return inspection.model_copy(update={"assumed": assumed})

    if set(request) == {"model"}:
        return inspected()
    if request.get("method") is None:
        alone = InspectBody(model=body.model)
        task = inspect(context, alone).task
        request["method"] = USUAL_METHODS[task]
        assumed.append(f"method {request['method']}, the usual one, as none is named")
    try:
        return inspected()
    except InvalidRequest as error:
        if error.param != "calibration" or request.get("calibration") is not None:
            raise
        described = inspect(context, InspectBody(model=body.model))
        calibration = usual_calibration(context.session, context.team_id, described)
        if calibration is None:
            raise
        request["calibration"] = calibration
        amount = f"{calibration['samples']} samples"
        if calibration.get("sequence_length") is not None:
            amount = f"{calibration['samples']} sequences of {calibration['sequence_length']} tokens"
        source = "that the model writes itself" if calibration["dataset"] == SELF else f"of {calibration['dataset']}"
        assumed.append(f"calibration on {amount} {source}, as none is named; a job has to name it")
    return inspected()


def usual_calibration(session: Session, team_id: str, model: ModelSummary) -> JsonObject | None:
    """Return the calibration on a registered set, else on the model's own text; None where neither is possible."""
    rows = session.scalars(select(DatasetRow).where(DatasetRow.team_id == team_id).limit(_MOST_SETS))
    chosen = choose_set(fitting_sets(model, [dataset_answer(row) for row in rows]), CALIBRATION_WORDS)
    return calibration_body(model, chosen)
