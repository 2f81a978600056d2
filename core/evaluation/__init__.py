"""Measurements of dense and pruned models: perplexity, accuracy, latency, operations, and the check of saved models."""
