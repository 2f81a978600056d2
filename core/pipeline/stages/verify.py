"""Reload check of an artifact that is written, in a process that has not made it."""

from typing import Any

from transformers import dynamic_module_utils

from core.engine.architectures.classifier_architecture import ClassifierDescription
from core.engine.architectures.describe import describe_folder
from core.engine.evaluation.reload_check import reload_check
from core.pipeline.messages import VerifySpec
from core.pipeline.reports.report import Verification
from core.pipeline.results import VerificationOutput
from core.pipeline.stages.context import StageContext


def verify(spec: VerifySpec, context: StageContext) -> VerificationOutput:
    """Open the artifact as users do, and compare what it computes; raises ReloadCheckFailed."""
    device = context.device
    folder, discovered = spec.artifact.path, spec.artifact.discovered
    description = describe_folder(folder, own_artifact=True, discovered=discovered)
    if isinstance(description, ClassifierDescription):
        from core.engine.evaluation.classifier_reload_check import classifier_reload_check

        checked = classifier_reload_check(folder, spec.expected, device=device)
    else:
        importing: Any = dynamic_module_utils
        importing.HF_MODULES_CACHE = str(spec.modules)  # it asked the environment once, when it was loaded
        checked = reload_check(folder, spec.expected, device=device, discovered=discovered)
    return VerificationOutput(
        model=description.model_dump(mode="json"),
        verification=Verification.model_validate(checked),
        peak_memory=context.peak_memory(),
    )
