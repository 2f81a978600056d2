"""Implementations of exporters: the classes of an exporter's module `exporter`, found by the protocol they follow."""

from core.discovery import require_class
from core.engine import exporters
from core.engine.exporters.protocols import AddedExporter, ClassifierExporter, ClassifierPreparation, FolderExporter

_MODULE = "exporter"


def folder_exporter(form: str) -> FolderExporter:
    return require_class(exporters, form, _MODULE, FolderExporter)()


def added_exporter(form: str) -> AddedExporter:
    """Return the exporter that adds a form to a verified artifact."""
    return require_class(exporters, form, _MODULE, AddedExporter)()


def classifier_preparation(form: str) -> ClassifierPreparation:
    """Return the change of a classifier's weights that a form requires."""
    return require_class(exporters, form, _MODULE, ClassifierPreparation)()


def classifier_exporter(form: str) -> ClassifierExporter:
    return require_class(exporters, form, _MODULE, ClassifierExporter)()
