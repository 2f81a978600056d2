"""Removal of whole experts: description and parameters in `info`, mathematics in `method`."""
