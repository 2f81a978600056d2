"""Distillation: description in `info`, what is trained and its losses in `method`."""
