"""Rounding of weights: description in `info`, mathematics in `method`."""
