"""llama.cpp: its description."""

from core.engine.latency.engine_info import EngineInfo

INFO = EngineInfo(
    id="llama-cpp",
    rank=20,
    title="llama.cpp",
    types={"Q8_0": 1.0625, "F16": 2, "Q4_K_M": 0.62, "Q5_K_M": 0.72, "Q6_K": 0.83, "Q4_0": 0.5625},
    packages=("llama-cpp-py-sync",),
    most_layers=32,
    form="gguf",
    without_ffn=False,  # it leaves out the attention of such a layer too
)
