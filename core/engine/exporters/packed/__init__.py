"""Packed files: bitmasks and the values that are left; `files` writes them."""
