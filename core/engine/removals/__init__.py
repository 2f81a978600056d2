"""Removals: what may go from a model, a folder for each kind.

`info` in a kind's folder says how much of it can go, which counts meet a request, and what is left; methods name the
kind that they remove. Nothing here loads torch. Kinds are found by `registry`, and nothing else names their `info`.
"""
