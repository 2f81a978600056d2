"""Importance matrix of llama.cpp: by what each column of a matrix is weighted when its types round it."""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from core.engine.exporters.gguf.settings import GgufSettings
from core.engine.exporters.gguf.tensors import placed_tensors
from core.engine.exporters.protocols import Importance
from core.engine.models.folder import ModelFolder


def write_importance(target: Path, folder: ModelFolder, settings: GgufSettings, importance: Importance) -> None:
    """Write the weights of the columns, float32 [columns], by the names of a file's matrices.

    Matrices that are stacks, such as those of experts, have none.
    """
    by_entry = {folder.tensors[f"{name}.weight"].name: squares for name, squares in importance.mean_squares.items()}
    weights = {}
    for placed in placed_tensors(folder, settings):
        squares_I = by_entry.get(placed.entries[0].name)
        if squares_I is not None and placed.name.endswith(".weight") and placed.shape[1:] == tuple(squares_I.shape):
            weights[placed.name] = np.ascontiguousarray(squares_I.float().numpy())
    save_file(weights, target)
