"""Looking before one submits: what a model is, what fits it, and roughly what a job would need."""

from typing import Any

from sqlalchemy.orm import Session

from core.artifacts.store import LocalStore
from core.catalogue.compatibility import check_job
from core.catalogue.methods import METHODS
from core.catalogue.model_folder import ModelDescription
from core.errors import SecateurError
from core.jobs.resolution import resolve_job, resolve_model
from core.jobs.schemas import Estimate, InspectBody, Inspection, JobBody, MethodFit

_RUNTIME_BYTES = 300 * 2**20
"""An interpreter with the libraries of the engine loaded."""
_DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


def inspect(
    session: Session, team_id: str, body: InspectBody, *, store: LocalStore, activation_budget_bytes: int
) -> Inspection:
    """A dry run of submit, or, with only a model given, a look at it.

    Raises what submit would raise for the same body, and pydantic's ValidationError where it is not a job body.
    """
    asked: dict[str, Any] = body.model_dump()
    job: JobBody | None = None
    estimate: Estimate | None = None
    if set(asked) == {"model"}:
        model = resolve_model(session, team_id, body.model, store)
        methods = _fits(model.description, "unstructured", 0.5)
    else:
        resolved = resolve_job(session, team_id, JobBody.model_validate(asked), store)
        model, job = resolved.model, resolved.body
        methods = _fits(model.description, job.pattern, job.sparsity)
        estimate = _estimate(model.description, job, activation_budget_bytes)
    described = {
        name: value for name, value in model.description.model_dump().items() if name in Inspection.model_fields
    }
    return Inspection(
        **described,
        object="inspection",
        model=body.model,
        model_revision=model.revision,
        methods=methods,
        job=job,
        estimate=estimate,
    )


def _fits(description: ModelDescription, pattern: str, sparsity: float | None) -> list[MethodFit]:
    def reason(method: str) -> str | None:
        try:
            check_job(description, method, pattern, sparsity, {})
        except SecateurError as error:
            return error.message
        return None

    reasons = {method: reason(method) for method in METHODS}
    return [MethodFit(method=method, fits=why is None, reason=why) for method, why in reasons.items()]


def _estimate(description: ModelDescription, job: JobBody, activation_budget_bytes: int) -> Estimate:
    """The prune stage holds embeddings and head, one block, its statistics, and activations up to the budget."""
    weight_bytes = _DTYPE_BYTES[description.dtype]
    blocks = [linear for linear in description.linears if linear.layer < description.layers]
    per_block = sum(linear.numel for linear in blocks) // description.layers
    widest = max(linear.in_features for linear in blocks)
    ends = max(description.parameters - description.prunable_parameters, 0) * weight_bytes
    tokens = _tokens(job)
    # Streams: the calibration tokens, and each evaluation text through the dense and the pruned blocks; in float32.
    streams = (tokens["calibration"] + 2 * tokens["evaluation"]) * description.hidden_size * 4
    statistics = 3 * widest * widest * 4 if job.method == "sparsegpt" else widest * 4
    activations = min(2 * streams, activation_budget_bytes)
    passes = tokens["calibration"] + 2 * tokens["evaluation"]
    solver = (
        sum(2 * linear.out_features * linear.in_features**2 for linear in blocks) if job.method == "sparsegpt" else 0
    )
    return Estimate(
        peak_memory_bytes=_RUNTIME_BYTES + ends + per_block * (weight_bytes + 4) + statistics + activations,
        disk_bytes=2 * description.bytes + 2 * streams,
        forward_tokens=passes,
        floating_point_operations=2 * passes * description.prunable_parameters + solver,
    )


def _tokens(job: JobBody) -> dict[str, int]:
    """Tokens that go through the model; where all samples are asked for, their number is known to the runner only."""
    calibration = job.calibration
    calibrated = 0 if calibration is None else (calibration.samples or 0) * (calibration.sequence_length or 0)
    windows = (job.evaluation.samples or 0) * (job.evaluation.sequence_length or 0)
    return {"calibration": calibrated, "evaluation": windows * len(job.evaluation.datasets)}
