"""Pruning of image classifiers, in memory.

The context a method works in, weights as matrices, coupled channels, retraining, and the state saved between rounds.
The methods themselves are in `core.methods.classifiers`.
"""
