"""Compensation: updates of the remaining weights that minimise the change of a layer's outputs.

Masks, or the kept units, are decided elsewhere.
"""
