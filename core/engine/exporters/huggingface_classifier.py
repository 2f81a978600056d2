"""Writer of classifiers: tensors under the source's names and dtypes, with its config and companions.

It imports torch, unlike the rest of this folder, because a classifier is pruned whole, in memory.
"""

import json
import shutil
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from core.engine.architectures.description import SHAPES_KEY
from core.engine.checkpoints.files import COMPANIONS, CONFIG_FILE, SINGLE_FILE
from core.engine.checkpoints.safetensors_header import WEIGHT_DTYPES, TensorEntry
from core.engine.models.classifier import COUNTERS, ClassifierFolder, build_classifier
from core.engine.models.reshaping import changed_groups
from core.engine.models.tensors import DTYPES, write_tensors


@torch.no_grad()
def round_to_stored(model: nn.Module, folder: ClassifierFolder) -> None:
    """Round every tensor to its stored dtype in the folder; the model itself stays float32.

    Figures measured afterwards then hold for the file that `write_classifier` saves.
    """
    state = model.state_dict()
    for name, entry in folder.tensors.items():
        if not name.endswith(COUNTERS):
            state[name].copy_(state[name].to(_dtype(entry)))


def write_classifier(model: nn.Module, folder: ClassifierFolder, target: Path) -> int:
    """Write the pruned model that was loaded from `folder` as a model folder; return the bytes of its tensors.

    Keys and dtypes are the source's, and so are the batch-norms' counts of batches. Negative zeros, which multiplied
    masks leave, become positive, because the packed format requires it. Where filters or channels were removed,
    config.json has the groups of the changed convolutions under SHAPES_KEY; otherwise it is the source's, and
    `from_pretrained` opens the folder.
    """
    target.mkdir(parents=True, exist_ok=True)
    state = model.state_dict()
    tensors = {
        # -0.0 becomes 0.0
        entry.name: _stored(entry) if name.endswith(COUNTERS) else state[name].to(_dtype(entry)) + 0.0
        for name, entry in folder.tensors.items()
    }
    write_tensors(target / SINGLE_FILE, tensors)
    for name in COMPANIONS:
        if (folder.path / name).is_file():
            shutil.copyfile(folder.path / name, target / name)
    if any(tensors[entry.name].shape != entry.shape for entry in folder.tensors.values()):
        config = folder.raw_config | {SHAPES_KEY: changed_groups(model, build_classifier(folder))}
        (target / CONFIG_FILE).write_text(json.dumps(config, indent=2, sort_keys=True))
    return sum(tensor.nbytes for tensor in tensors.values())


def _dtype(entry: TensorEntry) -> torch.dtype:
    return DTYPES[WEIGHT_DTYPES[entry.dtype]]


def _stored(entry: TensorEntry) -> Tensor:
    """Return a tensor of the source file, whatever its dtype."""
    with safe_open(entry.file, "pt") as opened:
        tensor: Tensor = opened.get_tensor(entry.name)
    return tensor
