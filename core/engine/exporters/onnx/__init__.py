"""ONNX: written beside every classifier as one file (`graph`), and added to language models on request (`decoder`)."""
