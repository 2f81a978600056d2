"""Filters by Taylor expansion: description and parameters in `info`, mathematics in `method`."""
