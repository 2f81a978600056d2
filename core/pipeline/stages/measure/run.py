"""Measurement of the latency of two models that are already written."""

from core.engine.evaluation.latency import measure_latency
from core.engine.models.classifier import open_classifier
from core.pipeline.stages.inputs import open_place
from core.pipeline.stages.measure.spec import LatencyOutput, MeasureSpec
from core.pipeline.stages.run import StageContext


def run(spec: MeasureSpec, context: StageContext) -> LatencyOutput:
    """Measure the latency of the dense and the pruned model, alternately."""
    context.progress.begin_part(0.0, 1.0, of_loops=True)
    if spec.image_shape is not None:
        from core.engine.evaluation.classifier_latency import measure_classifier_latency

        pair = (open_classifier(place.path) for place in (spec.dense, spec.pruned))
        measured = measure_classifier_latency(*pair, image_shape=spec.image_shape, device=context.device)
    else:
        assert spec.sequence_length is not None
        dense, pruned = open_place(spec.dense), open_place(spec.pruned)
        measured = measure_latency(dense, pruned, sequence_length=spec.sequence_length, device=context.device)
    return LatencyOutput.model_validate(measured | {"peak_memory": context.peak_memory()})
