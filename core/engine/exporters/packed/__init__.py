"""Packed files of bitmasks and remaining values: description in `info`, writer in `exporter` and `files`."""
