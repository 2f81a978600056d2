"""Opened folder of an image classifier, and the complete model loaded from it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForImageClassification, PreTrainedModel

from core.engine.architectures.architecture import REFERENCE_TYPE, ClassifierArchitecture
from core.engine.architectures.declared import CLASSIFIER_ARCHITECTURES
from core.engine.architectures.describe import describe_folder
from core.engine.architectures.description import SHAPES_KEY, ClassifierDescription
from core.engine.architectures.folder import read_config, read_tensors
from core.engine.checkpoints.safetensors_header import TensorEntry
from core.engine.models.loading import own_implementations
from core.engine.models.reference_networks import ReferenceNetwork
from core.engine.models.reshaping import reshape_modules
from core.engine.models.tensors import read_tensor
from secateur_wire.errors import MissingTensors, UnusableModel

COUNTERS = ".num_batches_tracked"
"""Suffix of batch-norm's counters of training steps. No result here depends on them."""


@dataclass(frozen=True)
class ClassifierFolder:
    """Opened folder. None of its code was executed, and none of its tensors is in memory."""

    path: Path
    description: ClassifierDescription
    family: ClassifierArchitecture
    raw_config: dict[str, Any]
    tensors: dict[str, TensorEntry]

    @property
    def groups(self) -> dict[str, int]:
        """Number of groups of each convolution where pruning changed it."""
        groups: dict[str, int] = self.raw_config.get(SHAPES_KEY, {})
        return groups


def open_classifier(path: Path) -> ClassifierFolder:
    """Check and open a folder; raises UnusableModel kinds or UnsupportedArchitecture."""
    description = describe_folder(path).classifier
    family = CLASSIFIER_ARCHITECTURES[description.architecture]
    return ClassifierFolder(path, description, family, read_config(path), read_tensors(path, family))


def model_class(family: ClassifierArchitecture) -> type[PreTrainedModel]:
    """Return the class of transformers, or of this project's reference networks."""
    if family.model_type == REFERENCE_TYPE:
        return ReferenceNetwork
    published: type[PreTrainedModel] = getattr(transformers, family.architecture)
    return published


def build_classifier(folder: ClassifierFolder) -> PreTrainedModel:
    """Build the float32 model of config.json, without the folder's weights; raises UnusableModel."""
    try:
        config = AutoConfig.from_pretrained(folder.path, local_files_only=True, trust_remote_code=False)
        model: PreTrainedModel = AutoModelForImageClassification.from_config(
            config,
            trust_remote_code=False,
            dtype=torch.float32,  # with the config's dtype, tensors stored in another one would be rounded
            **own_implementations(model_class(folder.family)),
        )
    except Exception as error:  # config classes and timm raise exceptions of any type
        raise UnusableModel(
            f"config.json of {folder.path.name} is refused by its model class: {str(error)[:300]}", param="model"
        ) from error
    return model


def build_without_weights(folder: ClassifierFolder) -> PreTrainedModel:
    """Build the float32 model on the meta device, in evaluation mode, with the shapes of the folder's tensors.

    Raises UnusableModel.
    """
    with torch.device("meta"):
        model = build_classifier(folder)
    shapes = {
        name: torch.empty(entry.shape, device="meta")
        for name, entry in folder.tensors.items()
        if not name.endswith(COUNTERS)
    }
    reshape_modules(model, shapes, folder.groups)
    nn.Module.to(model, "meta")  # tensors that a constructor computed from numbers
    model.eval()
    return model


def load_classifier(folder: ClassifierFolder, device: torch.device | None = None) -> PreTrainedModel:
    """Load the complete model in float32, in evaluation mode.

    `model(pixel_values=images_BCHW).logits` are [batch, classes]. Raises UnusableModel where the config is invalid, and
    MissingTensors where files and model differ.
    """
    model = build_classifier(folder)
    state = {name: read_tensor(entry) for name, entry in folder.tensors.items() if not name.endswith(COUNTERS)}
    reshape_modules(model, state, folder.groups)
    load_state(model, state)
    model.float().eval().to(device or torch.device("cpu"))
    return model


def load_state(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Copy tensors into a model; raises MissingTensors naming missing and unknown tensors."""
    try:
        answer = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise UnusableModel(f"the files do not fit the model: {str(error)[:500]}", param="model") from error
    missing = sorted(key for key in answer.missing_keys if not key.endswith(COUNTERS))
    if missing or answer.unexpected_keys:
        raise MissingTensors(
            f"the files lack {missing[:5]} and hold {sorted(answer.unexpected_keys)[:5]}, which the model has not",
            param="model",
        )
