"""Registry of exporters: every sibling folder whose `info` describes one. Nothing lists them or loads torch."""

from core.discovery import descriptions
from core.engine import exporters
from core.engine.exporters.exporter_info import AddedExporterInfo, ExporterInfo

EXPORTERS = descriptions(exporters, ExporterInfo)
OFFERED = {form: each for form, each in EXPORTERS.items() if each.written in ("first", "after")}
"""Forms of the weights that a job may request."""
ADDED = {form: each for form, each in EXPORTERS.items() if isinstance(each, AddedExporterInfo)}
"""Forms that a job may request in addition to those."""


def installed_runtimes() -> list[str]:
    """Return the names of the programs on this machine that run the forms' files."""
    return sorted({each.runtime.name for each in EXPORTERS.values() if each.runtime and each.runtime.is_installed})
