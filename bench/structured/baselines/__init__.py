"""Structured methods of others, written here from their papers' equations to compare with: nothing of the product uses
them. A baseline is a function from a model folder and calibration tokens to a checkpoint.
"""
