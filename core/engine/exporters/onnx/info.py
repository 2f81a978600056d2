"""ONNX: its description."""

from core.engine.exporters.exporter_info import ExporterInfo, ExportRuntime

INFO = ExporterInfo(
    id="onnx",
    rank=40,
    written="beside",
    task_families=("image-classification",),
    runtime=ExportRuntime("onnxruntime", module="onnxruntime"),
)
