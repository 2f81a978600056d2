"""The runner's tasks on an artifact that is written: the reload check, and other forms of it."""

from typing import Any

import torch
from transformers import dynamic_module_utils

from core.engine.architectures.classifier_architecture import ClassifierDescription
from core.engine.architectures.describe import describe_folder
from core.engine.evaluation.reload_check import reload_check
from core.engine.exporters.implementations import folder_exporter
from core.pipeline.messages import ExportSpec, VerifySpec
from secateur_wire.base import JsonObject


def verify(spec: VerifySpec, *, device: torch.device) -> dict[str, Any]:
    """Run the reload check, and return its figures with the description of the model."""
    description = describe_folder(spec.artifact, own_artifact=True)
    if isinstance(description, ClassifierDescription):
        from core.engine.evaluation.classifier_reload_check import classifier_reload_check

        checked = classifier_reload_check(spec.artifact, spec.expected, device=device)
    else:
        importing: Any = dynamic_module_utils
        importing.HF_MODULES_CACHE = str(spec.modules)  # it asked the environment once, when it was loaded
        checked = reload_check(spec.artifact, spec.expected, device=device)
    return checked | {"model": description.model_dump(mode="json")}


def export(spec: ExportSpec) -> JsonObject:
    """Write another form of the artifact."""
    return folder_exporter(spec.form).export(spec.artifact, spec.section)
