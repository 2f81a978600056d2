"""Pruning in rounds, of image classifiers in memory: prune a part, train what is left, and again.

Curvature, dropout, dead neurons, retraining and the state saved between rounds live here. The methods themselves are in
`core.methods`.
"""
