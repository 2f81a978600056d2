"""Registry of exporters: every folder beside it whose `info` describes one. None is listed, and no torch is loaded."""

from core.discovery import descriptions
from core.engine import exporters
from core.engine.exporters.exporter_info import AddedExporterInfo, ExporterInfo

EXPORTERS = descriptions(exporters, ExporterInfo)
OFFERED = {form: each for form, each in EXPORTERS.items() if each.written in ("first", "after")}
"""Forms of the weights that a job may ask for."""
ADDED = {form: each for form, each in EXPORTERS.items() if isinstance(each, AddedExporterInfo)}
"""Forms that a job may ask for beside those."""
