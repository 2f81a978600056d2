"""Implementations of exporters: the classes of an exporter's module `exporter`, found by the protocol they follow."""

from core.discovery import classes
from core.engine import exporters
from core.engine.exporters.protocols import AddedExporter, ClassifierExporter, ClassifierPreparation, FolderExporter


def folder_exporter(form: str) -> FolderExporter:
    """Return what writes a form from a finished folder."""
    for each in classes(exporters, form, "exporter"):
        if issubclass(each, FolderExporter):
            return each()
    raise _missing(form, FolderExporter)


def added_exporter(form: str) -> AddedExporter:
    """Return what adds a form to a verified artifact."""
    for each in classes(exporters, form, "exporter"):
        if issubclass(each, AddedExporter):
            return each()
    raise _missing(form, AddedExporter)


def classifier_preparation(form: str) -> ClassifierPreparation:
    """Return what makes a classifier's weights fit a form."""
    for each in classes(exporters, form, "exporter"):
        if issubclass(each, ClassifierPreparation):
            return each()
    raise _missing(form, ClassifierPreparation)


def classifier_exporter(form: str) -> ClassifierExporter:
    """Return what writes a form of a classifier in memory."""
    for each in classes(exporters, form, "exporter"):
        if issubclass(each, ClassifierExporter):
            return each()
    raise _missing(form, ClassifierExporter)


def _missing(form: str, protocol: type) -> LookupError:
    return LookupError(f"form {form!r}: its module `exporter` has no class that is a {protocol.__name__}")
