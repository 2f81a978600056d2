"""Measurement of the latency of two models that are already written, and their texts after the same prompts."""

from collections.abc import Iterator
from contextlib import contextmanager

from core.engine.evaluation.continuations import compare_continuations
from core.engine.evaluation.latency import measure_latency
from core.engine.models.accelerator import ran_out_of_memory
from core.engine.models.classifier import open_classifier
from core.pipeline.stages.inputs import open_place
from core.pipeline.stages.measure.spec import LatencyOutput, MeasureSpec
from core.pipeline.stages.run import StageContext


@contextmanager
def _suppress_out_of_memory() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if not ran_out_of_memory(error):
            raise


def run(spec: MeasureSpec, context: StageContext) -> LatencyOutput:
    """Measure the latency of the dense and the pruned model, alternately, and have them continue the prompts."""
    context.progress.begin_part(0.0, 1.0, of_loops=True)
    if spec.image_shape is not None:
        from core.engine.evaluation.classifier_latency import measure_classifier_latency

        pair = (open_classifier(place.path) for place in (spec.dense, spec.pruned))
        measured = measure_classifier_latency(*pair, image_shape=spec.image_shape, device=context.device)
    else:
        assert spec.sequence_length is not None
        dense, pruned = open_place(spec.dense), open_place(spec.pruned)
        measured, loaded = measure_latency(dense, pruned, sequence_length=spec.sequence_length, device=context.device)
        if spec.prompts:
            with _suppress_out_of_memory():  # each of them alone may fit, which the next stage tries
                written = compare_continuations(
                    {"dense": dense, "pruned": pruned},
                    spec.prompts,
                    tokens=spec.prompt_tokens,
                    device=context.device,
                    loaded=loaded,
                )
                measured |= {"generations": written["generations"], "notes": [*measured["notes"], *written["notes"]]}
    return LatencyOutput.model_validate(measured | {"peak_memory": context.peak_memory()})
