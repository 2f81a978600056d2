"""Kinds of removal: the parts that a model can lose, a file for each kind, and a row in each table of `registry`."""
