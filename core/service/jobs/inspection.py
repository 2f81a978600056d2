"""Inspection before a submit: the facts of a model, the methods that fit it, and a job's estimate."""

from typing import Any

from core.engine.architectures.description import Description, stored_as
from core.engine.exporters.registry import OFFERED
from core.engine.options.patterns import UNSTRUCTURED
from core.methods.registry import METHODS, get_method
from core.pipeline.recipes.recipe import Recipe
from core.pipeline.recipes.request import UnresolvedRequest
from core.pipeline.recipes.sizes import expected_size
from core.pipeline.recipes.validation import resolve_request, task_mismatch
from core.pipeline.recipes.vocabulary import recipe_without_tokens, without_tokens
from core.service.jobs.estimates.history import estimate_that_fits
from core.service.jobs.queue_names import require_queue
from core.service.jobs.resolution.context import RequestContext
from core.service.jobs.resolution.job import resolve_job
from core.service.jobs.resolution.model import resolve_model
from core.service.jobs.schemas import InspectBody, Inspection, JobBody
from secateur_wire.errors import SecateurError
from secateur_wire.jobs import Estimate, ExpectedArtifact, MethodFit


def inspect(context: RequestContext, body: InspectBody) -> Inspection:
    """Check a request without queuing it; for a body with only a model, describe the model.

    Raises the errors of a submit of the same body, NotDiscovered where the model is not discovered yet, and pydantic's
    ValidationError for an invalid body.
    """
    request: dict[str, Any] = body.model_dump()
    job: JobBody | None = None
    estimate: Estimate | None = None
    artifact: ExpectedArtifact | None = None
    if set(request) == {"model"}:
        model = resolve_model(context, body.model)
        methods = _fits(model.description)
    else:
        checked = JobBody.model_validate(request)
        require_queue(context.session, checked.queue, context.settings)
        resolved = resolve_job(context, checked)
        model, recipe, job = resolved.model, resolved.recipe, resolved.body
        prunes = get_method(job.method).prunes
        known = {} if job.sparsity is None else {"sparsity": job.sparsity}
        methods = _fits(model.description, job.pattern, **known) if prunes else _fits(model.description)
        estimate = estimate_that_fits(context.session, context.team_id, resolved, context.settings).estimate
        artifact = _artifact(model.description, recipe)
    described = {
        name: value for name, value in model.description.model_dump().items() if name in Inspection.model_fields
    }
    return Inspection(
        **described,
        model=body.model,
        model_revision=model.revision,
        methods=methods,
        job=job,
        estimate=estimate,
        artifact=artifact,
        assumed=[],
    )


def _artifact(description: Description, job: Recipe) -> ExpectedArtifact | None:
    has_known_size = OFFERED[job.output.format].has_known_size and job.output.quantization is None
    if job.sparsity is None or not get_method(job.method).prunes or not has_known_size:
        return None
    reduced = without_tokens(description, job.vocabulary)
    if job.vocabulary is not None:
        if reduced is description:  # the texts decide
            return None
        job = recipe_without_tokens(job, description, reduced)
    parameters, size = expected_size(stored_as(reduced, job.output.dtype), job.request, job.output.format)
    return ExpectedArtifact(parameters=parameters, bytes=size)


def _fits(description: Description, pattern: str | None = None, sparsity: float | None = 0.5) -> list[MethodFit]:
    """Return how each method fits a model; pattern and sparsity are for methods that prune."""

    def reason(method: str) -> str | None:
        mismatch = task_mismatch(description, METHODS[method])
        if mismatch is not None:
            return mismatch
        try:
            removal = METHODS[method].variant(pattern).removal
            target = (pattern, sparsity) if METHODS[method].prunes else (UNSTRUCTURED.text, None)
            if removal is not None and removal.reads_texts:
                target = pattern, None
            resolve_request(description, UnresolvedRequest(method, *target))
        except SecateurError as error:
            return error.message
        return None

    reasons = {method: reason(method) for method in METHODS}
    return [MethodFit(method=method, fits=why is None, reason=why) for method, why in reasons.items()]
