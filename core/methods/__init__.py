"""Methods: one folder for each published method, composed of `core.engine.pruning` and known by its id.

A folder holds the parts that only its method needs. The engine holds the parts that several methods share. This package
knows no jobs and no database, and its registry does not load torch.
"""
