"""Weights: single weights become zero, and every tensor keeps its shape."""
