"""Filters by L1 norm: description and parameters in `info`, mathematics in `method`."""
