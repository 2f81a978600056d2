"""Reload check of an artifact, in a process that did not write it."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from transformers import dynamic_module_utils

from core.engine.architectures.classifier_architecture import ClassifierDescription
from core.engine.architectures.describe import Description, describe_folder, in_dtype
from core.engine.evaluation.reload_check import reload_check
from core.engine.evaluation.reload_memory import ReloadRoom, reload_needs
from core.engine.models.accelerator import CPUBackend, backend_of
from core.engine.models.tensors import DTYPES
from core.pipeline.reports.report import Verification
from core.pipeline.stages.run import StageContext
from core.pipeline.stages.verify.spec import VerificationOutput, VerifySpec
from core.progress import Progress

Checked = tuple[Description, Mapping[str, Any]]


def run(spec: VerifySpec, context: StageContext) -> VerificationOutput:
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
    rooms = [] if spec.offload is None else [_room(device, spec.memory_bytes)]
    needs = reload_needs(opened, backend_of(device).kind, rooms)
    place, offload = spec.artifact, spec.offload if needs.offloads else None
    try:
        return artifact, reload_check(
            place.path,
            spec.expected,
            device=device,
            dtype=None if spec.dtype is None else DTYPES[spec.dtype],
            discovered=place.discovered,
            offload=offload,
        )
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


def _room(device: torch.device, memory_bytes: int | None) -> ReloadRoom:
    """Return the free memory for a check: the device's, and the main memory that the worker may use."""
    backend = backend_of(device)
    memory = CPUBackend(torch.device("cpu")).free_bytes()
    if memory_bytes is not None:
        memory = min(memory, memory_bytes - backend.kind.process_bytes)
    return ReloadRoom(memory, backend.free_bytes() if backend.kind.has_own_memory else None)
