"""Iterative pruning of image classifiers in memory: prune a part, train the rest, repeat.

The package has curvature, dropout, dead neurons, retraining and the state saved between rounds. The methods themselves
are in `core.methods`.
"""
