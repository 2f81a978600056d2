"""Random structured pruning: description and parameters in `info`, mathematics in `method`."""
