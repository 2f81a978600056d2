"""ONNX Runtime in its own process: `python -m core.engine.exporters.onnx.runtime`."""

from pathlib import Path

import onnxruntime  # noqa: F401  # before the memory is limited

from core.engine.exporters.engine_process import run_process
from core.engine.exporters.graph_engine import GraphLibrary
from secateur_wire.graphs import Graph, OnnxGraph


class _OnnxRuntime(GraphLibrary):
    name = "ONNX Runtime"

    def session(self, file: Path, threads: int, *, is_exact: bool) -> Graph:
        return OnnxGraph(file, threads)


if __name__ == "__main__":
    run_process(_OnnxRuntime)
