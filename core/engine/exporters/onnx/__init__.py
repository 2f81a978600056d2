"""ONNX: `graph` writes a classifier as one file."""
