"""Architectures: the facts of a model that follow from its config.json and the headers of its weights.

This package holds the known architectures (modules of `overrides`, found by `registry`), the kinds of units (modules of
`unit_kinds`, found by `unit_registry`), descriptions of model folders, layer shapes, and the counts of units to remove.
Nothing here imports torch or transformers, and nothing knows a method, its parameters or a pattern.
"""
