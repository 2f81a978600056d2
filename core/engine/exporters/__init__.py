"""Exporters: a folder for each form an artifact is written in, and what they share.

An exporter's `info` describes it without torch, its `exporter` writes the form; the registry finds the folders, and
nothing else names one, but for those who read a form back. `huggingface` and `huggingface_classifier` write the folder
that every artifact is first. Tensors are copied as bytes wherever they can be, without torch. What a pass of pruning
computes, and what a job says about its artifact, has no place here.
"""
