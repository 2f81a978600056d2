"""Exporters of ONNX files: of classifiers in memory, and of language models' folders."""

from pathlib import Path

from torch import nn

from core.engine.checkpoints.files import ONNX_FILE
from core.engine.exporters.onnx.decoder import OnnxDecoder
from core.engine.exporters.onnx.graph import export_onnx
from core.engine.exporters.protocols import ClassifierExporter

__all__ = ["OnnxDecoder", "OnnxFile"]


class OnnxFile(ClassifierExporter):
    def export(self, model: nn.Module, image_shape: tuple[int, int, int], folder: Path) -> int:
        return export_onnx(model, image_shape, folder / ONNX_FILE)
