"""Graphs in ONNX Runtime, which take and give keys and values."""
