"""Storing without pruning: description and parameters in `info`, the method that changes nothing in `method`."""
