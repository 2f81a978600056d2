"""Resolution of sensitivity jobs: their allowed fields, and the allocation of a later job by their curves."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.engine.architectures.description import Description
from core.engine.options.patterns import parse_pattern, resolve_sparsity
from core.engine.options.sensitivity import LayerCosts, Sensitivity, allocate
from core.engine.removals.weights import LayerSelection, prunable_linears, selection_of
from core.methods.registry import get_method, parse_parameters
from core.pipeline.recipes.recipe import Output
from core.pipeline.reports.report import Report
from core.service.jobs.resolution.hub_lookup import JOB_PREFIX
from core.service.jobs.resolution.model import ResolvedModel
from core.service.jobs.schemas import JobBody
from core.service.jobs.tables import JobReportRow, JobRow
from secateur_wire.errors import InvalidParameters, InvalidRequest, InvalidTarget
from secateur_wire.job_body import Gates

ALLOCATION_LABEL = "allocation_job"
"""Metadata key that names the sensitivity job from which a job's allocation was computed."""
_MOST_LABELS = 50
_WHERE = "parameters.allocation"


def measured_body(body: JobBody) -> JobBody:
    """Return a sensitivity job's body with its text filled in; raises InvalidRequest for fields of pruning jobs."""
    unused_fields = {
        "recovery": body.recovery is not None,
        "gates": body.gates != Gates(),
        "evaluation.tasks": bool(body.evaluation.tasks),
        "evaluation.prompts": bool(body.evaluation.prompts),
        "evaluation.answers": body.evaluation.answers is not None,
        "output.format": body.output.format != Output().format,
        "output.dtype": body.output.dtype != Output().dtype,
        "output.quantization": body.output.quantization is not None,
        "output.exports": bool(body.output.exports),
        "target": body.target is not None,
    }
    for param, is_set in unused_fields.items():
        if is_set:
            raise InvalidRequest(f"{param}: {body.method} makes no model, it only measures: leave it out", param=param)
    evaluation, calibration = body.evaluation, body.calibration
    if not evaluation.datasets and calibration is not None:
        evaluation = evaluation.model_copy(
            update={
                "datasets": [calibration.dataset],
                "samples": evaluation.samples or calibration.samples,
                "sequence_length": evaluation.sequence_length or calibration.sequence_length,
            }
        )
    if len(evaluation.datasets) != 1:
        raise InvalidRequest(
            f'evaluation.datasets: {body.method} measures on one text, name it: "evaluation": {{"datasets": ["NAME"]}}',
            param="evaluation.datasets",
        )
    return body.model_copy(update={"evaluation": evaluation})


def allocated_body(session: Session, team_id: str, body: JobBody, model: ResolvedModel) -> JobBody:
    """Return the body with `"allocation": "job:ID"` replaced by one sparsity per layer; other bodies unchanged.

    Raises InvalidParameters where the job belongs to another team, did not succeed, or measured other layers or
    something else. Raises InvalidSparsity where the requested sparsity is above its highest measured rate.
    """
    reference = body.parameters.get("allocation")
    if not isinstance(reference, str) or not reference.startswith(JOB_PREFIX):
        return body
    checked = parse_parameters(body.method, body.parameters, body.pattern)
    pattern = parse_pattern(body.pattern or get_method(body.method).patterns[0])
    if pattern.is_n_m:
        raise InvalidParameters(
            f"{_WHERE}: pattern n:m fixes every layer's sparsity, only 'uniform' fits", param=_WHERE
        )
    if body.target is not None:
        raise InvalidTarget(
            "target: a job with rates from a sensitivity job needs a sparsity: give sparsity in place of target",
            param="target",
        )
    sparsity = resolve_sparsity(pattern, body.sparsity)
    sensitivity = _measured(session, team_id, reference, model)
    rates = layer_sparsities(sensitivity, model.description, selection_of(checked), sparsity, reference)
    labels = body.metadata
    if ALLOCATION_LABEL in labels or len(labels) < _MOST_LABELS:
        labels = labels | {ALLOCATION_LABEL: reference}
    return body.model_copy(update={"parameters": body.parameters | {"allocation": rates}, "metadata": labels})


def layer_sparsities(
    sensitivity: Sensitivity, description: Description, parameters: LayerSelection, sparsity: float, named: str
) -> list[float]:
    """Return one sparsity per layer; 0 for layers that the request leaves dense. `named` is the requested job id."""
    if not sensitivity.is_by_layer:
        raise InvalidParameters(
            f"{_WHERE}: {named} measured single linear layers (scope 'module'), an allocation is by decoder layer: "
            "measure with scope 'layer'",
            param=_WHERE,
        )
    if not parse_pattern(sensitivity.pattern).is_unrestricted:
        raise InvalidParameters(
            f"{_WHERE}: {named} measured pattern {sensitivity.pattern!r}, one rate for every layer: measure "
            "'unstructured'",
            param=_WHERE,
        )
    weights: dict[int, int] = {}
    for linear in prunable_linears(description, parameters):
        if linear.layer < description.layers:  # The output head keeps the requested sparsity.
            weights[linear.layer] = weights.get(linear.layer, 0) + linear.numel
    curves = {curve.layer: curve for curve in sensitivity.curves}
    missing = sorted(weights.keys() - curves.keys())
    if missing:
        raise InvalidParameters(
            f"{_WHERE}: {named} did not measure layer {missing[0]}, which this job prunes: add it to "
            "parameters.skip_layers, or measure it",
            param=_WHERE,
        )
    costs = [
        LayerCosts(curves[layer].name, weights[layer], sensitivity.rates, sensitivity.increases(curves[layer]))
        for layer in sorted(weights)
    ]
    rates = dict(zip(sorted(weights), allocate(costs, sparsity), strict=True))
    return [rates.get(layer, 0.0) for layer in range(description.layers)]


def _measured(session: Session, team_id: str, reference: str, model: ResolvedModel) -> Sensitivity:
    """Return the result of a sensitivity job; its layers must be those of this model."""
    job_id = reference.removeprefix(JOB_PREFIX)
    job = session.scalar(select(JobRow).where(JobRow.id == job_id, JobRow.team_id == team_id))
    if job is None:
        raise InvalidParameters(f"{_WHERE}: there is no job {job_id!r}", param=_WHERE)
    if not get_method(job.method).measures:
        raise InvalidParameters(
            f"{_WHERE}: {reference} is a job of method {job.method!r}, one of 'sensitivity' is needed", param=_WHERE
        )
    if job.status != "succeeded":
        raise InvalidParameters(
            f"{_WHERE}: {reference} is {job.status}; its figures exist only after it has succeeded", param=_WHERE
        )
    report = Report.model_validate(session.get_one(JobReportRow, (job.id, job.attempt)).report)
    layers = ("architecture", "prunable_parameters")
    differing = [name for name in layers if getattr(report.model, name, None) != getattr(model.description, name)]
    if job.model_revision != model.revision and differing:
        measured, requested = (getattr(each, differing[0], None) for each in (report.model, model.description))
        raise InvalidParameters(
            f"{_WHERE}: {reference} measured {job.model!r}, whose {differing[0].replace('_', ' ')} ({measured}) are "
            f"not this model's ({requested}): measure this model",
            param=_WHERE,
        )
    return Sensitivity.model_validate(report.sensitivity)
