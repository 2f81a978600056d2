"""ONNX, written beside every classifier: description in `info`; `exporter` writes the `graph` as one file."""
