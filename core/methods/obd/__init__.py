"""Optimal Brain Damage: description and parameters in `info`, mathematics in `method`."""
