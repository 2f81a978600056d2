"""Removals: what may go from a model, a folder for each kind.

`info` in a kind's folder says, without torch, how much of it can go, which counts meet a request, and what is left;
`run` carries it out. Methods name the kind that they remove. Kinds are found by `registry`; nothing else names them.
"""
