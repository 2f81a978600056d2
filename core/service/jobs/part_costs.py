"""Requests for the costs of a model's parts: looked up, or measured by a worker that has the engine."""

from collections.abc import Callable, Iterable
from typing import Final

from core.engine.architectures.description import ModelDescription
from core.engine.latency.costs import Latency, PartCosts, Workload
from core.engine.latency.model_widths import dense_shape
from core.engine.latency.registry import engine_info
from core.engine.latency.variants import ModelShape
from core.service.jobs.queue import workers_of
from core.service.jobs.queue_names import require_queue
from core.service.jobs.resolution.context import RequestContext
from core.service.jobs.resolution.model import ResolvedModel, resolve_model
from core.service.part_costs import ask_for_part_costs, is_known, kept_part_costs
from secateur_wire.errors import InternalError, InvalidRequest
from secateur_wire.part_costs import (
    CostsStatus,
    CostsTable,
    PartCostsAnswer,
    PartCostsBody,
    PartCostsError,
    SizeTimes,
    Times,
)

_UNANSWERED: Final = "no worker could measure it, in as many attempts as there are: their logs say why"


def look_up(context: RequestContext, body: PartCostsBody) -> PartCostsAnswer:
    """Return the costs of a model's parts as far as they are measured. Raises the errors of `measure`."""
    model, workload = _checked(context, body)
    return _answer(context, body, model, workload)


def measure(context: RequestContext, body: PartCostsBody) -> PartCostsAnswer:
    """Have a worker measure the costs of a model's parts, again where they are measured.

    Raises InvalidRequest where no worker of the queue has the engine, or it cannot hold the model; the errors of
    `resolve_model`; and UnsupportedArchitecture.
    """
    model, workload = _checked(context, body)
    _require_engine(context, body)
    description = model.description.language_model
    ask_for_part_costs(context.session, context.team_id, model.reference, description, workload, body.queue)
    return _answer(context, body, model, workload)


def _checked(context: RequestContext, body: PartCostsBody) -> tuple[ResolvedModel, Workload]:
    info = engine_info(body.engine)
    require_queue(context.session, body.queue, context.settings)
    model = resolve_model(context, body.model, body.queue)
    kind = body.type or next(iter(info.types))
    info.check(model.description.language_model, kind)
    workload = Workload.model_validate(body.model_dump(exclude={"model", "queue"}) | {"type": kind})
    workload.check(model.description.language_model.context_length)
    return model, workload


def _require_engine(context: RequestContext, body: PartCostsBody) -> None:
    """Require that a worker of the queue has the engine; where there is no worker, nothing is known."""
    info = engine_info(body.engine)
    workers = workers_of(context.session, [body.queue], context.settings.worker_fresh_seconds)
    if info.runtime is None or not workers or any(each.runtimes is None for each in workers):
        return
    if not any(info.runtime.name in (each.runtimes or ()) for each in workers):
        raise InvalidRequest(
            f"engine: no worker of queue {body.queue!r} has {info.title}: install it on a worker with "
            f"{info.runtime.how_to_install}, name a queue that has it, or choose another engine",
            param="engine",
        )


def _answer(context: RequestContext, body: PartCostsBody, model: ResolvedModel, workload: Workload) -> PartCostsAnswer:
    description = model.description.language_model
    report = kept_part_costs(context.session, description, workload, body.queue)
    status: CostsStatus = "not_measured"
    table, error = None, None
    if report is None:
        status = "waiting" if is_known(context.session, description, workload, body.queue) else status
    elif report.costs is not None:
        status, table = "measured", _table(report.costs, description)
    else:
        status, error = "failed", report.error or PartCostsError(code=InternalError.code, message=_UNANSWERED)
    return PartCostsAnswer(
        model=model.pinned,
        engine=workload.engine,
        type=workload.type,
        batch=workload.batch,
        prompt_tokens=workload.prompt_tokens,
        context_tokens=workload.context_tokens,
        queue=body.queue,
        status=status,
        table=table,
        error=error,
    )


def _table(costs: PartCosts, description: ModelDescription) -> CostsTable:
    dense = ModelShape(dense_shape(description), costs.model.vocabulary)
    assert costs.workload.threads is not None, "a table has the number"
    return CostsTable(
        machine=costs.machine,
        version=costs.version,
        measured_on=costs.measured_on,
        threads=costs.workload.threads,
        layers=costs.layers,
        rounds=len(costs.rounds),
        attention=_by_size(costs.prefill.attention, costs.attention),
        ffn=_by_size(costs.prefill.ffn, costs.ffn),
        vocabulary=_by_size(costs.prefill.vocabulary, costs.vocabulary),
        rest=_times(costs.rest),
        dense=_times(costs.predict(dense)),
        dense_standard_error=_times(costs.standard_errors(dense)),
    )


def _by_size(sizes: Iterable[int], cost: Callable[[int], Latency]) -> list[SizeTimes]:
    return [SizeTimes(size=size, **cost(size)._asdict()) for size in sizes]


def _times(latency: Latency) -> Times:
    return Times(**latency._asdict())
