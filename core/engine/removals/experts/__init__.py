"""Experts: each mixture of a model loses the same number of whole experts."""
