"""Distillation: description in `info`, trained parameters and losses in `method`."""
