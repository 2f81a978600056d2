"""Measurements of dense and pruned models: perplexity, accuracy, latency, operations, and the check of saved models.

They take a model and return figures; what a job makes of them, and how they are shown, has no place here.
"""
