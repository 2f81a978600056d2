"""FLAP: description and parameters in `info`, mathematics in `method`."""
