"""ONNX Runtime: graphs that take and give keys and values."""
