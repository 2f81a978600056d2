"""Packed files, of bitmasks and the values that are left: description in `info`, writer in `exporter` and `files`."""
