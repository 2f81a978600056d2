"""OpenVINO: its description."""

from core.engine.latency.engine_info import EngineInfo

INFO = EngineInfo(
    id="openvino",
    rank=30,
    title="OpenVINO",
    types={"INT8": 1, "F16": 2, "F32": 4},
    packages=("openvino",),
    most_layers=12,
    form="openvino",
)
