"""Losses of the files that were added to an artifact, on the evaluation texts."""
