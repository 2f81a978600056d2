"""Stages of a job, one after the other: each is given a message, a device and who watches it, and gives its result.

What several jobs have in common, as the mathematics of a pass, is the engine's; the process that a stage runs in, and
what is sent to and from it, are the worker's. Nothing is imported in this file: a process loads what its stage needs.
"""
