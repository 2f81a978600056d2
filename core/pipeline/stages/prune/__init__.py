"""Pruning of a language model."""
