"""Architectures: what a model is, from its config.json and the headers of its weights alone.

The known architectures (a module of `overrides` each, found by `registry`), kinds of units (a module of `unit_kinds`
each, found by `unit_registry`), descriptions of model folders, the shapes of layers and the counts of units that can go
live here. Nothing imports torch or transformers, and no method, its
parameters or a pattern is known.
"""
