"""Measurements of dense and pruned models: perplexity, accuracy, latency, operations, and the check of saved models.

They take a model and return figures. They know nothing of jobs or of how figures are shown.
"""
