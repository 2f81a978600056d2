"""Engines whose times are measured: a folder for each, with `info`, without torch, and `timing`."""
