"""Generation of texts from prompts, by models that are already written."""

from core.engine.evaluation.continuations import compare_continuations
from core.pipeline.stages.generate.spec import GenerateSpec, GenerationOutput
from core.pipeline.stages.inputs import open_place
from core.pipeline.stages.run import StageContext


def run(spec: GenerateSpec, context: StageContext) -> GenerationOutput:
    """Generate text with each model from the same prompts."""
    written = compare_continuations(
        {name: open_place(place) for name, place in spec.models.items()},
        spec.prompts,
        tokens=spec.tokens,
        device=context.device,
        on_progress=context.progress.advance,
    )
    return GenerationOutput.model_validate(written | {"peak_memory": context.peak_memory()})
