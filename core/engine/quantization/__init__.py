"""Quantised weights: a folder for each way to round them, its description in `info` and its mathematics in `method`.

`settings` has the choices of a job and their checks, without torch; `implementations` builds a rounding.
"""
