"""Exporters: one folder for each form of artifact, and the code they share.

An exporter's `info` describes it without torch, its `exporter` writes the form. The registry finds the folders; only
code that reads a form back names one. Every artifact begins as a folder of `huggingface` or `huggingface_classifier`.
Tensors are copied as bytes, without torch, wherever possible. Exporters know nothing of pruning passes or of a job's
texts about its artifact.
"""
