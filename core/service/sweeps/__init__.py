"""Sweeps: many jobs on one model as one thing, over a grid or as a search for the smallest model that is good enough.

`grid` makes points of a request, `validation` tries each before anything is queued, `advance` has the dispatcher start
them a few at a time, `planning` says which comes next and `search` which a search needs, `results` is what came out.
"""
