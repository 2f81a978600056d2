"""Measurements of models that are written: their latency, their answers to tasks, and how they go on from prompts."""

from importlib.metadata import version

from core.engine.evaluation.continuations import compare_continuations
from core.engine.evaluation.latency import measure_latency
from core.engine.models.classifier import open_classifier
from core.pipeline.messages import GenerateSpec, MeasureSpec, TasksSpec
from core.pipeline.results import GenerationOutput, LatencyOutput, TasksOutput
from core.pipeline.stages.context import StageContext
from core.pipeline.stages.opening import open_place


def measure(spec: MeasureSpec, context: StageContext) -> LatencyOutput:
    """Measure the latency of dense and pruned in turn."""
    if spec.image_shape is not None:
        from core.engine.evaluation.classifier_latency import measure_classifier_latency

        pair = (open_classifier(place.path) for place in (spec.dense, spec.pruned))
        measured = measure_classifier_latency(*pair, image_shape=spec.image_shape, device=context.device)
    else:
        assert spec.sequence_length is not None
        dense, pruned = open_place(spec.dense), open_place(spec.pruned)
        measured = measure_latency(dense, pruned, sequence_length=spec.sequence_length, device=context.device)
    return LatencyOutput.model_validate(measured | {"peak_memory": context.peak_memory()})


def generate(spec: GenerateSpec, context: StageContext) -> GenerationOutput:
    """Generate what models write after the same prompts."""
    written = compare_continuations(
        {name: open_place(place) for name, place in spec.models.items()},
        spec.prompts,
        tokens=spec.tokens,
        device=context.device,
        on_progress=context.progress.advance,
    )
    return GenerationOutput.model_validate(written | {"peak_memory": context.peak_memory()})


def answer_tasks(spec: TasksSpec, context: StageContext) -> TasksOutput:
    """Measure the zero-shot accuracy of one model."""
    from core.engine.evaluation.zero_shot import measure_tasks  # slow to load, and for this alone

    measured = measure_tasks(
        open_place(spec.model),
        {each.name: each.path for each in spec.questions},
        limit=spec.limit,
        work=spec.work,
        device=context.device,
        on_progress=context.progress.advance,
    )
    return TasksOutput(tasks=measured, lm_eval=version("lm_eval"), peak_memory=context.peak_memory())
