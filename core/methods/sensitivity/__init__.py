"""Sensitivity: the loss when one layer alone is pruned, measured for every layer and rate; nothing is removed.

There is one pass for language models and one for classifiers. This package does not show or use the curves.
"""
