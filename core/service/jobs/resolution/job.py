"""Resolution of a request to the recipe of the job that will run.

All names are looked up, defaults are filled in, and requests that cannot run are refused, with the parameter at fault,
before anything is queued.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from core.engine.architectures.classifier_architecture import ClassifierDescription
from core.engine.architectures.description import ModelDescription
from core.engine.exporters.registry import OFFERED
from core.engine.options.base import MethodParameters
from core.errors import InvalidRequest
from core.methods.registry import get_method
from core.pipeline.recipes.alignment import aligned_request
from core.pipeline.recipes.outputs import resolve_output
from core.pipeline.recipes.parts import Output
from core.pipeline.recipes.recipe import Recipe
from core.pipeline.recipes.request import ResolvedRequest, UnresolvedRequest
from core.pipeline.recipes.validation import calibrated_method, calibrated_variant
from core.service.jobs.gates import require_measured
from core.service.jobs.resolution.classifier import resolve_classifier_job
from core.service.jobs.resolution.hub_lookup import HubFindings
from core.service.jobs.resolution.model import ResolvedModel, resolve_model
from core.service.jobs.resolution.recovery import resolve_recovery
from core.service.jobs.resolution.sensitivity import allocated_body, measured_body
from core.service.jobs.resolution.tasks import resolve_tasks
from core.service.jobs.resolution.text import SELF, TextNeeds, generated_text, resolve_text
from core.service.jobs.schemas import DEFAULT_SEQUENCE_LENGTH, JobBody
from core.service.sources.references import SelfText, TextReference, Use
from core.storage import Store
from secateur_wire.job_body import Calibration, Evaluation
from secateur_wire.requests import RequestObject


@dataclass(frozen=True)
class ResolvedJob:
    """Request that can be run: its recipe, and references to all that it names."""

    recipe: Recipe
    model: ResolvedModel
    sources: Mapping[str, Any]

    @property
    def body(self) -> JobBody:
        """The request with its defaults filled in, as answers show it."""
        parameters = self.recipe.parameters.model_dump(mode="json")
        return JobBody.model_construct(**dict(self.recipe) | {"parameters": parameters})


def resolve_job(
    session: Session, team_id: str, body: JobBody, store: Store, hub: HubFindings | None = None
) -> ResolvedJob:
    """Check a request and fill in its defaults; raises the error that names the fault.

    `hub` is what was found there for this body (`HubLookup.of`).
    """
    findings = hub or HubFindings()
    method = get_method(body.method)
    model = resolve_model(session, team_id, body.model, store, findings, body.queue)
    if method.measures:
        body = measured_body(body)
    body = allocated_body(session, team_id, body, model)
    checked = aligned_request(model.description, request_of(body), body.output.exports)
    if isinstance(model.description, ClassifierDescription):
        images = resolve_classifier_job(session, team_id, body, checked, model.description, findings)
        recipe = _recipe(body, model, checked, output=images.output, recovery=images.recovery)
        return ResolvedJob(recipe, model, {**images.sources, "model": model.reference.model_dump(mode="json")})
    parameters = checked.parameters
    reader = calibrated_method(checked.method, parameters)
    variant = calibrated_variant(checked.method, checked.pattern, parameters)
    compensation, allocating = parameters.requested_compensation, parameters.allocation_options
    allocation = None if allocating is None else allocating.measured_allocation
    if (variant.needs.calibration or compensation or allocation) and body.calibration is None:
        whose = "compensation" if compensation else f"allocation {allocation!r}" if allocation else reader.id
        raise InvalidRequest(
            f'calibration is required: {whose} measures activations on text, for example "calibration": '
            '{"dataset": "NAME", "samples": 128, "sequence_length": 512}',
            param="calibration",
        )
    output = resolve_output(body.output, model.description, checked)
    calibration, text, generated = _resolve_calibration(session, team_id, body, parameters, model.description, findings)
    if compensation and compensation.chooses and calibration and calibration.samples == 1 and not calibration.generated:
        raise InvalidRequest(
            "calibration.samples: compensation that is chosen (auto) holds a sequence aside: give 2 or more",
            param="calibration.samples",
        )
    evaluation, texts = _resolve_evaluation(session, team_id, body, calibration, model.description, findings)
    require_measured(body.gates, evaluation, model.description.model_task, has_exports=bool(output.exports))
    recovery = resolve_recovery(
        session, team_id, body, checked.pattern, calibration, text, model.description, store, findings
    )
    recipe = _recipe(
        body,
        model,
        checked,
        output=output,
        calibration=calibration,
        evaluation=evaluation,
        recovery=recovery.recovery,
    )
    sources = {
        "model": model.reference.model_dump(mode="json"),
        "calibration": None if text is None else text.model_dump(mode="json"),
        "generated": None if generated is None else generated.model_dump(mode="json"),
        "evaluation": [each.model_dump(mode="json") for each in texts],
        "tasks": [each.model_dump(mode="json") for each in resolve_tasks(body.evaluation.tasks, findings)],
        **recovery.sources,
    }
    return ResolvedJob(recipe, model, sources)


def _recipe(
    body: JobBody, model: ResolvedModel, checked: ResolvedRequest, *, output: Output, **filled: RequestObject | None
) -> Recipe:
    """Return the recipe of a request; `filled` are the parts of it that have got their defaults."""
    return Recipe.model_validate(
        {
            **dict(body),
            "model": model.pinned,
            "pattern": checked.pattern,
            "sparsity": checked.sparsity,
            "parameters": checked.parameters,
            "output": output.model_copy(update={"layout": checked.layout}),
            **filled,
        }
    )


def request_of(body: JobBody) -> UnresolvedRequest:
    """Return the part of a body that decides which weights go."""
    return UnresolvedRequest(
        body.method,
        body.pattern,
        body.sparsity,
        body.parameters,
        target=body.target,
        layout=body.output.layout,
        is_calibrated=body.calibration is not None,
        leaves_out_zeros=OFFERED[body.output.format].leaves_out_zeros,
    )


def _resolve_calibration(
    session: Session,
    team_id: str,
    body: JobBody,
    parameters: MethodParameters,
    description: ModelDescription,
    hub: HubFindings,
) -> tuple[Calibration | None, TextReference | None, SelfText | None]:
    """Return the calibration with its defaults, the text of its dataset, and the text the model is to generate."""
    calibration = body.calibration
    if calibration is None:
        return None, None, None
    split = parameters.split_calibration(calibration.samples)
    if split is not None and calibration.generated is None and calibration.dataset != SELF:
        samples, generated = split
        calibration = calibration.model_copy(update={"samples": samples, "generated": generated})
    length = _sequence_length(calibration.sequence_length, None, description, "calibration.sequence_length")
    needs = TextNeeds("calibration", "calibration.dataset", calibration.samples, length, calibration.seed)
    text = resolve_text(session, team_id, calibration.dataset, needs, hub)
    if calibration.generated and calibration.dataset == SELF:
        raise InvalidRequest(
            f"calibration.generated: with the dataset {SELF!r} the model writes all of it: raise calibration.samples",
            param="calibration.generated",
        )
    written = None
    if calibration.generated:
        written = generated_text(
            TextNeeds("calibration", "calibration.generated", calibration.generated, length, calibration.seed)
        )
    return calibration.model_copy(update={"sequence_length": length}), text, written


def _resolve_evaluation(
    session: Session,
    team_id: str,
    body: JobBody,
    calibration: Calibration | None,
    description: ModelDescription,
    hub: HubFindings,
) -> tuple[Evaluation, list[TextReference]]:
    evaluation = body.evaluation
    default = None if calibration is None else calibration.sequence_length
    length = _sequence_length(evaluation.sequence_length, default, description, "evaluation.sequence_length")
    use: Use = "evaluation"
    texts: list[TextReference] = []
    for index, name in enumerate(evaluation.datasets):
        param = f"evaluation.datasets.{index}"
        if name in evaluation.datasets[:index]:
            raise InvalidRequest(f"{param}: {name!r} is named twice", param=param)
        needs = TextNeeds(use, param, evaluation.samples, length, calibration.seed if calibration else 0)
        texts.append(resolve_text(session, team_id, name, needs, hub))
    _require_room_for_prompts(evaluation, description)
    return evaluation.model_copy(update={"sequence_length": length}), texts


def _require_room_for_prompts(evaluation: Evaluation, description: ModelDescription) -> None:
    """Require that the model's context has room for the new tokens after the shortest prompt; raises InvalidRequest.

    That prompt is one token after the one that begins a text.
    """
    most = description.context_length - 2
    if evaluation.prompts and evaluation.prompt_tokens > most:
        raise InvalidRequest(
            f"evaluation.prompt_tokens: {evaluation.prompt_tokens} new tokens leave no room for a prompt in the "
            f"model's context of {description.context_length}: ask for at most {most}",
            param="evaluation.prompt_tokens",
        )


def _sequence_length(requested: int | None, default: int | None, description: ModelDescription, param: str) -> int:
    if requested is None:
        return default or min(DEFAULT_SEQUENCE_LENGTH, description.context_length)
    if requested > description.context_length:
        raise InvalidRequest(
            f"{param} {requested} is longer than the model's context of {description.context_length} tokens",
            param=param,
        )
    return requested
