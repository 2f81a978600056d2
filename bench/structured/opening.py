"""Models of this bench's checkpoints: of one shape, of layers in different shapes, and sliced ones."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from bench.structured.baselines.slicegpt import SLICED_FILE, empty_sliced, load_sliced
from core.engine.models.folder import ModelFolder, open_model
from core.engine.models.loading import build_model, load_model


def load(place: Path) -> PreTrainedModel:
    """A checkpoint's model in float32."""
    if (place / SLICED_FILE).exists():
        return load_sliced(place)
    return load_model(open_model(place, own_artifact=True), torch.device("cpu"), dtype=torch.float32)


def empty(dense: ModelFolder, config: dict[str, Any], sliced_width: int | None) -> PreTrainedModel:
    """A model of that shape with random weights, which run as fast as any: no checkpoint is needed."""
    if sliced_width is not None:
        return empty_sliced(dense, sliced_width)
    folder = replace(dense, config=type(dense.config).from_dict(config))
    model = build_model(folder, torch.float32)
    model.eval().requires_grad_(False)
    return model
