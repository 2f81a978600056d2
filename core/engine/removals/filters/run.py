"""Removal of filters: one of its methods prunes the loaded network in rounds."""

from core.engine.removals.run import ClassifierRun


class FilterRun(ClassifierRun):
    """Run of the removal of filters from a classifier."""
