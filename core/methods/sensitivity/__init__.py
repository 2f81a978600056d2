"""Sensitivity: the loss when one layer alone is pruned, measured for every layer and rate, with nothing removed.

One pass for language models, one for classifiers; how the curves are shown or used has no place here.
"""
