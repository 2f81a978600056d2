"""Structured pruning by L2 norm: description and parameters in `info`, mathematics in `method`."""
