"""Plain safetensors: their description. They need no exporter: the artifact's folder already has them."""

from core.engine.exporters.exporter_info import ExporterInfo

INFO = ExporterInfo(id="dense", rank=10, written="first")
