"""Removal of layers: description and parameters in `info`, mathematics in `method`."""
