"""Plain safetensors: their description. Nothing is left to write: the artifact's folder has them."""

from core.engine.exporters.exporter_info import ExporterInfo

INFO = ExporterInfo(id="dense", rank=10, written="first")
