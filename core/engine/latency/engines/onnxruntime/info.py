"""ONNX Runtime: its description."""

from core.engine.latency.engine_info import EngineInfo

INFO = EngineInfo(
    id="onnxruntime",
    rank=40,
    title="ONNX Runtime",
    types={"F32": 4},
    packages=("onnxruntime",),
    most_layers=12,
    form="onnx",
)
