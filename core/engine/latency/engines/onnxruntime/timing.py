"""Timing of graphs in ONNX Runtime."""

from core.engine.exporters.onnx.decoder import OnnxDecoder
from core.engine.latency.timing import GraphTiming


class OnnxRuntimeTiming(GraphTiming):
    files = OnnxDecoder()
    engine = files.engine
