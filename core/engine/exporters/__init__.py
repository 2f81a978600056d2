"""Exporters: the files of an artifact written from tensors, as a Hugging Face folder, packed, hashed or as ONNX.

Tensors are copied as bytes wherever they can be, without torch. What a pass of pruning computes, and what a job says
about its artifact, has no place here.
"""
