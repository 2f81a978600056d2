"""Kinds of checks, one a module: its `CHECK` is a `Check`."""
