"""Widths: layers get narrower as heads and channels are removed."""
