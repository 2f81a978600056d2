"""Resolution of a request to the recipe of the job that will run.

All names are looked up and defaults are filled in. A request that cannot run is refused before a job is queued, and the
error names the parameter at fault.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from core.engine.architectures.description import CLASSIFICATION
from core.engine.exporters.registry import OFFERED
from core.methods.registry import get_method
from core.pipeline.recipes.recipe import Recipe
from core.pipeline.recipes.request import ResolvedRequest, UnresolvedRequest
from core.pipeline.recipes.vocabulary import request_with_vocabulary
from core.service.jobs.resolution.classifier import resolve_image_inputs
from core.service.jobs.resolution.context import RequestContext, ResolvedInputs
from core.service.jobs.resolution.language import resolve_language_inputs
from core.service.jobs.resolution.model import ResolvedModel, resolve_model
from core.service.jobs.resolution.sensitivity import allocated_body, measured_body
from core.service.jobs.schemas import JobBody


@dataclass(frozen=True)
class ResolvedJob:
    """Request that can run: its recipe, and references to everything that it names."""

    recipe: Recipe
    model: ResolvedModel
    sources: Mapping[str, Any]

    @property
    def is_fetched(self) -> bool:
        """Return whether the model's files are copied to the worker first."""
        return bool(self.sources["model"]["kind"] != "folder")

    @property
    def body(self) -> JobBody:
        """Return the request with its defaults, as answers show it."""
        parameters = self.recipe.parameters.model_dump(mode="json")
        return JobBody.model_construct(**dict(self.recipe) | {"parameters": parameters})


_INPUTS: Final = {"language-model": resolve_language_inputs, CLASSIFICATION: resolve_image_inputs}
"""Resolution of a job's inputs, by the task of its model."""


def resolve_job(context: RequestContext, body: JobBody) -> ResolvedJob:
    """Check a request and fill in its defaults; raises the error that names the fault."""
    method = get_method(body.method)
    model = resolve_model(context, body.model, body.queue)
    if method.measures:
        body = measured_body(body)
    body = allocated_body(context.session, context.team_id, body, model)
    request = request_with_vocabulary(model.description, request_of(body), body.output, body.vocabulary)
    inputs = _INPUTS[model.description.task](context, body, request, model)
    sources = {"model": model.reference.model_dump(mode="json"), **inputs.sources}
    return ResolvedJob(_recipe(body, model, request, inputs), model, sources)


def _recipe(body: JobBody, model: ResolvedModel, request: ResolvedRequest, inputs: ResolvedInputs) -> Recipe:
    parts = {**dict(body), **inputs.parts}
    return Recipe.model_validate(
        {
            **parts,
            "model": model.pinned,
            "pattern": request.pattern,
            "sparsity": request.sparsity,
            "parameters": request.parameters,
            "output": parts["output"].model_copy(update={"layout": request.layout}),
        }
    )


def request_of(body: JobBody) -> UnresolvedRequest:
    """Return the part of a body that decides which weights are removed."""
    return UnresolvedRequest(
        body.method,
        body.pattern,
        body.sparsity,
        body.parameters,
        target=body.target,
        layout=body.output.layout,
        is_calibrated=body.calibration is not None,
        leaves_out_zeros=OFFERED[body.output.format].leaves_out_zeros,
        exports={each.format: each.types for each in body.output.exports},
    )
