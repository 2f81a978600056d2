"""OpenVINO in its own process: `python -m core.engine.exporters.openvino.runtime`."""

from pathlib import Path

import openvino  # noqa: F401  # before the memory is limited

from core.engine.exporters.engine_process import run_process
from core.engine.exporters.graph_engine import GraphLibrary
from secateur_wire.graphs import Graph, OpenVinoGraph


class _OpenVino(GraphLibrary):
    name = "OpenVINO"

    def session(self, file: Path, threads: int, *, is_exact: bool) -> Graph:
        return OpenVinoGraph(file, threads, is_exact=is_exact)


if __name__ == "__main__":
    run_process(_OpenVino)
