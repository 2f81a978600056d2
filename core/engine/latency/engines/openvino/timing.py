"""Timing of graphs in OpenVINO."""

from core.engine.exporters.openvino.exporter import OpenVinoFiles
from core.engine.latency.timing import GraphTiming


class OpenVinoTiming(GraphTiming):
    files = OpenVinoFiles()
    engine = files.engine
