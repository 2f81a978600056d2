"""Weights: they become zero, and every tensor keeps its shape."""
