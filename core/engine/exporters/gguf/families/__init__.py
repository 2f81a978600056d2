"""Families of GGUF, one module each, named after the `model_type` of config.json; the registry finds them.

Each `FAMILY` has llama.cpp's names of an architecture, its tensors and its settings, and llama.cpp's limits.
"""
