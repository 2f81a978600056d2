"""ONNX: its description."""

from core.engine.exporters.exporter_info import ExporterInfo, Runtime

INFO = ExporterInfo(
    id="onnx",
    rank=40,
    written="beside",
    task_families=("image-classification",),
    runtime=Runtime("onnxruntime", module="onnxruntime"),
)
