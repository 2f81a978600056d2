"""Iterative magnitude pruning: description and parameters in `info`, mathematics in `method`."""
