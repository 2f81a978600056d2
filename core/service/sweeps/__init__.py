"""Sweeps: many jobs on one model, over a grid or as a search for the smallest model that meets limits.

`grid` makes the points of a request, and `validation` checks each before anything is queued. `advance` lets the
dispatcher start their jobs, a few at a time. `planning` chooses the next point, and `search` the next point of a
search. `results` compares the points.
"""
