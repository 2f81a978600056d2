"""Exporter of packed files."""

from pathlib import Path

from core.engine.exporters.packed.files import pack_folder
from core.engine.exporters.protocols import FolderExporter
from secateur_wire.base import JsonObject


class Packing(FolderExporter):
    """Replacement of weight files by packed ones."""

    def export(self, folder: Path, section: JsonObject) -> JsonObject:
        return pack_folder(folder)
