"""Stages: the parts of a job that come one after the other, of which the search for a size that is fast enough is here.

What several jobs have in common, as the mathematics of a pass, is the engine's.
"""
