"""Stages of an attempt between fetching and storing, as the supervisor sees them.

Each says for which jobs it is, what the runner is told, and what its answer changes in metrics and report. Their order
is in `walk.py`; what the runner does is `core.pipeline.stages`.
"""
