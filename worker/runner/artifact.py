"""The runner's tasks on an artifact that is written: the reload check, and its weights packed or shared by hash."""

from typing import Any

import torch
from transformers import dynamic_module_utils

from core.engine.architectures.classifier_architecture import ClassifierDescription
from core.engine.architectures.describe import describe_folder
from core.engine.evaluation.reload_check import reload_check
from worker.runner.specs import HashSpec, PackSpec, VerifySpec


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


def pack(spec: PackSpec) -> dict[str, Any]:
    """Replace dense weights by bitmasks and surviving values."""
    from core.engine.exporters.packed.files import pack_folder

    return pack_folder(spec.artifact)


def share_by_hash(spec: HashSpec) -> dict[str, Any]:
    """Replace the linear layers' weights by shared values."""
    from core.engine.exporters.hashed.files import hash_folder
    from core.engine.exporters.hashed.sharing import HashSharing

    return hash_folder(spec.artifact, {each.tensor: HashSharing(each.seed, each.buckets) for each in spec.tensors})
