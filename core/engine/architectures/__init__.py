"""Architectures: the facts of a model that follow from its config.json and the headers of its weights.

This package holds the declared architectures, the kinds of units, descriptions of model folders, layer shapes, and the
counts of units to remove. Nothing here imports torch or transformers, and nothing knows a method, its parameters or a
pattern.
"""
