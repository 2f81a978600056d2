"""Experts: each mixture of a model loses as many whole experts."""
