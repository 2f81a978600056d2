"""Optimal Brain Surgeon: description and parameters in `info`, mathematics in `method`."""
