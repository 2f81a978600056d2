"""Widths: heads and channels go, so that layers get narrower."""
