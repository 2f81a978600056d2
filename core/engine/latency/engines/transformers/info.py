"""transformers: its description."""

from core.engine.latency.engine_info import EngineInfo

INFO = EngineInfo(
    id="transformers",
    rank=10,
    title="transformers",
    types={"float32": 4, "bfloat16": 2, "float16": 2},
    packages=("transformers", "torch"),
    most_layers=16,
)
