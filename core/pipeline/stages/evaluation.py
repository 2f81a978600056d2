"""Measurements of models that are already written, and the check that an artifact opens again."""

import gc
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from transformers import dynamic_module_utils

from core.engine.architectures.describe import describe_folder
from core.engine.architectures.description import ClassifierDescription, Description, in_dtype
from core.engine.evaluation.continuations import compare_continuations
from core.engine.evaluation.forward_memory import ReloadRoom, reload_needs
from core.engine.evaluation.latency import measure_latency
from core.engine.evaluation.reload_check import reload_check
from core.engine.models.accelerator import backend_of, ran_out_of_memory
from core.engine.models.classifier import open_classifier
from core.engine.models.tensors import DTYPES
from core.pipeline.reports.report import Verification
from core.pipeline.stages.context import StageContext, memory_room
from core.pipeline.stages.evaluation_spec import (
    GenerateSpec,
    GenerationOutput,
    LatencyOutput,
    MeasureSpec,
    TasksOutput,
    TasksSpec,
    VerificationOutput,
    VerifySpec,
)
from core.pipeline.stages.inputs import open_place
from core.progress import Progress


@contextmanager
def _suppress_out_of_memory() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if not ran_out_of_memory(error):
            raise


def measure_latencies(spec: MeasureSpec, context: StageContext) -> LatencyOutput:
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
            with _suppress_out_of_memory():  # each of them alone may fit, which another process tries
                written = compare_continuations(
                    {"dense": dense, "pruned": pruned},
                    spec.prompts,
                    tokens=spec.prompt_tokens,
                    device=context.device,
                    loaded=loaded,
                )
                measured |= {"generations": written["generations"], "notes": [*measured["notes"], *written["notes"]]}
    return LatencyOutput.model_validate(measured | {"peak_memory": context.peak_memory()})


def generate(spec: GenerateSpec, context: StageContext) -> GenerationOutput:
    """Generate text with each model from the same prompts."""
    written = compare_continuations(
        {name: open_place(place) for name, place in spec.models.items()},
        spec.prompts,
        tokens=spec.tokens,
        device=context.device,
        on_progress=context.progress.advance,
    )
    return GenerationOutput.model_validate(written | {"peak_memory": context.peak_memory()})


def answer_tasks(spec: TasksSpec, context: StageContext) -> TasksOutput:
    """Measure the accuracy of one model."""
    from core.engine.evaluation.zero_shot import measure_tasks  # slow to load, and only this stage needs it

    measured = measure_tasks(
        open_place(spec.model),
        {each.name: each.path for each in spec.questions},
        limit=spec.limit,
        examples=spec.num_fewshot,
        work=spec.work,
        device=context.device,
        on_progress=context.progress.advance,
    )
    return TasksOutput(tasks=measured, lm_eval=version("lm_eval"), peak_memory=context.peak_memory())


Checked = tuple[Description, Mapping[str, Any]]


def verify(spec: VerifySpec, context: StageContext) -> VerificationOutput:
    """Open the artifact as users do, and compare its outputs; raises ReloadCheckFailed."""
    artifact = describe_folder(spec.artifact.path, own_artifact=True, discovered=spec.artifact.discovered)
    description, checked = _CHECKS[artifact.task](artifact, spec, context)
    return VerificationOutput(
        model=description.model_dump(mode="json"),
        verification=Verification.model_validate(checked),
        peak_memory=context.peak_memory(),
    )


def _check_language_model(artifact: Description, spec: VerifySpec, context: StageContext) -> Checked:
    device = context.device
    importing: Any = dynamic_module_utils
    importing.HF_MODULES_CACHE = str(spec.modules)  # the library reads the environment only once, when it is loaded
    opened = artifact.language_model if spec.dtype is None else in_dtype(artifact.language_model, spec.dtype)
    backend, place = backend_of(device), spec.artifact
    room = ReloadRoom(memory_room(spec), backend.free_bytes() if backend.kind.has_own_memory else None)
    needs = reload_needs(opened, backend.kind, [] if spec.offload is None else [room])
    check = partial(
        reload_check,
        place.path,
        spec.expected,
        device=device,
        dtype=None if spec.dtype is None else DTYPES[spec.dtype],
        discovered=place.discovered,
    )
    try:
        if not needs.offloads:
            try:
                return artifact, check()
            except Exception as error:
                if spec.offload is None or not ran_out_of_memory(error):
                    raise
                context.progress.log(f"Memory ran out: the matrices of the blocks are left on the disk. {error}")
            gc.collect()  # modules and their hooks refer to each other
        return artifact, check(offload=spec.offload)
    finally:
        if spec.offload is not None:
            shutil.rmtree(spec.offload, ignore_errors=True)  # as large as the model, and the store may need the space


def _check_classifier(artifact: Description, spec: VerifySpec, context: StageContext) -> Checked:
    from core.engine.evaluation.classifier_reload_check import classifier_reload_check

    checked = classifier_reload_check(spec.artifact.path, spec.expected, device=context.device)
    return _traced(artifact.classifier, spec.artifact.path, checked["image_shape"], context.progress), checked


_CHECKS: Final[Mapping[str, Callable[[Description, VerifySpec, StageContext], Checked]]] = {
    "language-model": _check_language_model,
    "image-classification": _check_classifier,
}
"""Checks by the task of the artifact; each returns the description, with its findings, and how close the outputs are.
"""


def _traced(
    description: ClassifierDescription, folder: Path, image_shape: tuple[int, int, int], progress: Progress
) -> ClassifierDescription:
    """Return the description with the facts of a trace, for estimates of later jobs; unchanged if it fails."""
    from core.engine.models.classifier import open_classifier
    from core.engine.pruning.classifier_trace import trace_classifier

    try:
        passes = trace_classifier(open_classifier(folder), image_shape)
    except Exception as error:  # the code of any type of model may fail in any way, and the check does not depend on it
        progress.log(f"the artifact was not traced: {type(error).__name__}: {str(error)[:300]}")
        return description
    return description.model_copy(update={"passes": passes})
