"""Timing of graphs: a model of a shape is traced, as an artifact is."""

from pathlib import Path
from typing import ClassVar

import torch

from core.engine.exporters.graph_files import GraphFiles
from core.engine.latency.small_models import random_model
from core.engine.latency.timing import FileTiming
from core.engine.latency.variants import ModelShape
from core.engine.models.folder import ModelFolder


class GraphTiming(FileTiming):
    """Timing of an engine of graphs; `files` writes them."""

    files: ClassVar[GraphFiles]

    def write(self, folder: ModelFolder, shape: ModelShape, kind: str, file: Path) -> Path:
        target = file.with_suffix(self.files.info.suffixes[0])
        self.files.write_model(random_model(folder, shape, torch.float32), {kind: target})
        return target
